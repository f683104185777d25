"""Captions say every object, keep to the vocabulary and the length, and read back to the objects they were made from."""

import numpy as np
import pytest

from data_pipelines.simulation.captions import (
    MOST_WORDS,
    RELATIONS,
    SHAPE_WORDS,
    SIZE_WORDS,
    VERBS,
    VOCABULARY,
    Named,
    SceneFacts,
    describe,
    facts,
    named,
    parse,
    slots_by_mention,
)
from data_pipelines.simulation.events import EVENT_KINDS
from data_pipelines.simulation.scene import COLOURS, SIZES, SLOTS, draw
from wsm_jax.snapshot import Waves, look_at
from wsm_jax.snapshot.waves import empty, stack


def random_facts(rng: np.random.Generator) -> SceneFacts:
    """Any facts at all: up to four distinct objects, any relations between them, any happenings."""
    pairs = [(shape, colour) for shape in SHAPE_WORDS for colour in COLOURS]
    chosen = rng.choice(len(pairs), rng.integers(1, 5), replace=False)
    objects = tuple(Named(*pairs[i], list(SIZES)[rng.integers(2)]) for i in chosen)
    others = [(i, j) for i in range(len(objects)) for j in range(len(objects)) if i != j]
    relations = tuple((i, list(RELATIONS)[rng.integers(4)], j) for i, j in others if rng.random() < 0.5)
    happenings = []
    for _ in range(rng.integers(0, 8)):
        who, kind = int(rng.integers(len(objects))), EVENT_KINDS[rng.integers(len(EVENT_KINDS))]
        partners = [j for i, j in others if i == who]
        if kind in ("hits", "lands on") and not partners:
            continue
        whom = partners[rng.integers(len(partners))] if kind in ("hits", "lands on") else None
        happenings.append((who, kind, whom))
    return SceneFacts(objects, relations, tuple(happenings))


def test_parse_inverts_describe_for_any_scene():
    said: set[str] = set()
    for seed in range(600):
        rng = np.random.default_rng(seed)
        scene = random_facts(rng)
        captions = describe(scene, rng)
        assert 1 <= len(captions) <= 4 and len(set(captions)) == len(captions)
        for text in captions:
            words = text.replace(".", " .").replace(",", " ,").split()
            said |= set(words)
            assert len(words) <= MOST_WORDS, text
            assert set(words) <= set(VOCABULARY), text
            read = parse(text)
            assert {(n.shape, n.colour) for n in read} == {(n.shape, n.colour) for n in scene.objects}, text
            assert all(any(n.matches(o) for o in scene.objects) for n in read), text
    assert said == set(VOCABULARY), "the vocabulary is exactly what the grammar produces"
    assert len(VOCABULARY) < 96


def test_facts_give_two_to_four_wordings():
    counts = [len(describe(random_facts(np.random.default_rng([1, i])), np.random.default_rng(i))) for i in range(100)]
    assert set(counts) == {2, 3, 4}


def test_the_first_caption_is_plain_and_the_same_for_the_same_facts():
    scene = random_facts(np.random.default_rng(3))
    first, second = (describe(scene, np.random.default_rng(seed)) for seed in (1, 2))
    assert first[0] == second[0] and first[1:] != second[1:]
    assert [(n.shape, n.colour, n.size) for n in parse(first[0])] == [(n.shape, n.colour, n.size) for n in scene.objects]


def test_slots_follow_the_order_of_the_words(pair):
    assert slots_by_mention("a blue box and a red ball.", pair[0]) == (0, 1, 3, 2, 4, 5)
    assert slots_by_mention("a red ball rolls, the blue box rests.", pair[0]) == (0, 1, 2, 3, 4, 5)
    assert slots_by_mention("a blue box.", pair[0]) == (0, 1, 3, 2, 4, 5)
    assert slots_by_mention("", pair[0]) == (0, 1, 2, 3, 4, 5)


def test_every_event_and_every_size_has_words():
    assert set(VERBS) == set(EVENT_KINDS)
    assert set(SIZE_WORDS) == set(SIZES)


def test_parse_reads_model_text_and_ignores_the_rest():
    text = "A Big red ball, the ball is blue. the RED sphere hits a green block . green green large drum cushion white"
    assert parse(text) == (Named("ball", "red", "large"), Named("box", "green", None))
    assert parse("the red ball rolls . a small red ball") == (Named("ball", "red", "small"),)
    assert parse("") == ()


def test_sizes_match_unless_both_are_given_and_differ():
    ball = Named("ball", "red", "small")
    assert ball.matches(Named("ball", "red")) and Named("ball", "red").matches(ball) and ball.matches(ball)
    assert not ball.matches(Named("ball", "red", "large")) and not ball.matches(Named("box", "red", "small"))


@pytest.fixture(scope="module")
def pair() -> Waves:
    """Two ticks of a red ball at x = -1 and a large blue box at x = +1, y = 0.2."""
    waves = empty(SLOTS)
    waves.presence[[2, 3]], waves.semantic[[2, 3]], waves.instance[[2, 3]] = 1.0, (3, 4), (3, 4)
    waves.centre[2], waves.centre[3] = (-1, 0, 0.3), (1, 0.2, 0.4)
    waves.scale[2], waves.scale[3] = 0.28, 0.42
    waves.colour[2], waves.colour[3] = (0.8, 0.2, 0.1), (0.1, 0.3, 0.9)
    return stack([waves, waves])


def test_facts_of_a_known_core(pair):
    front = look_at(np.array([[0, -5, 2]], np.float32), np.array([[0, 0, 0.3]], np.float32))
    side = look_at(np.array([[5, 0, 2]], np.float32), np.array([[0, 0, 0.3]], np.float32))
    happened = ({"kind": "hits", "time": 0.1, "instances": [4, 3]}, {"kind": "rests", "time": 0.0, "instances": [3]})
    seen = facts(pair, happened, front)
    assert seen.objects == (Named("ball", "red", "small"), Named("box", "blue", "large")) == named(pair[0])
    assert set(seen.relations) == {(0, "left", 1), (1, "right", 0)}
    assert seen.happenings == ((1, "hits", 0), (0, "rests", None))
    assert set(facts(pair, (), side).relations) == {(0, "behind", 1), (1, "front", 0)}


def test_drawn_scenes_are_named_by_their_waves():
    for i in range(10):
        scene = draw(np.random.default_rng([5, i]))
        assert len(set(named(scene.waves))) == len(scene.objects)
