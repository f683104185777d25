"""Text of a clip: facts read off the recorded core, worded by a small grammar, and a parser that reads the objects back.

Grammar, in lower-case words with "." and ",":

    caption   := sentence+                       sentence := clauses "."
    object    := ("a" | "an" | "the") [size] colour shape
    clauses   := list of objects, alone or after "there is" | object verb [, verb] [and verb] | object "is" relation object

Every caption names every object with colour and shape at least once; the size is optional.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from data_pipelines.simulation.scene import COLOURS, FIRST_OBJECT, FLOOR, SCREEN, SIZE_THRESHOLD_M
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import SEMANTIC_CLASSES, Camera, Waves

MOST_WORDS = 40

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("ball", "sphere"),
    "box": ("box", "block"),
    "cylinder": ("cylinder", "drum"),
    "cushion": ("cushion", "pillow"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
SCREEN_WORDS = ("screen", "panel")

VERBS: dict[str, tuple[str, ...]] = {
    "falls": ("falls", "drops", "falls down"),
    "bounces": ("bounces", "bounces up"),
    "rolls": ("rolls", "rolls along"),
    "slides": ("slides", "glides along", "slides along"),
    "hits": ("hits", "strikes", "bumps into"),
    "lands on": ("lands on", "drops on"),
    "hits screen": ("hits the {screen}", "strikes the {screen}"),
    "passes behind": ("passes behind the {screen}", "moves behind the {screen} and out again"),
    "goes behind": ("goes behind the {screen}", "is hidden by the {screen}"),
    "comes out": ("comes out from behind the {screen}", "comes into view"),
    "is behind": ("is behind the {screen}", "stays behind the {screen}"),
    "stops": ("stops", "comes to rest"),
    "rests": ("rests", "rests on the floor", "lies still", "stays still"),
}
"""Event kind -> phrases, third person."""
_MORE_VERBS = ("is on the floor",)

RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
_OPENINGS = ("", "there is", "we see")
_GLUE = ("a", "an", "the", "and", "is", ".", ",")


def _vocabulary() -> tuple[str, ...]:
    phrases: list[str] = [*COLOURS, *SCREEN_WORDS, *_OPENINGS, *_MORE_VERBS, *_GLUE]
    for table in (SHAPE_WORDS, SIZE_WORDS, VERBS, RELATIONS):
        phrases += [phrase for options in table.values() for phrase in options]
    return tuple(sorted({word for phrase in phrases for word in phrase.replace("{screen}", "").split()}))


VOCABULARY = _vocabulary()
"""Every word that the grammar can produce, "." and "," among them."""


@dataclasses.dataclass(frozen=True, order=True)
class Named:
    """An object as described by a text."""

    shape: str
    colour: str
    size: str | None = None

    def matches(self, other: "Named") -> bool:
        """True for the same shape and colour, and the same size if both have one."""
        sizes = {self.size, other.size} - {None}
        return (self.shape, self.colour) == (other.shape, other.colour) and len(sizes) < 2


@dataclasses.dataclass(frozen=True)
class SceneFacts:
    """Facts of a clip; objects are referred to by their index in `objects`."""

    objects: tuple[Named, ...]
    relations: tuple[tuple[int, str, int], ...]
    """(a, "left" | "right" | "front" | "behind", b) at the first tick, as the first camera sees them."""
    happenings: tuple[tuple[int, str, int | None], ...]
    """(who, event kind, whom), in order of time."""


def colour_name(colour: Sequence[float] | np.ndarray) -> str:
    """The nearest colour of the palette to an sRGB colour."""
    names = list(COLOURS)
    return names[int(np.argmin(np.linalg.norm(np.array([COLOURS[n] for n in names]) - np.asarray(colour), axis=1)))]


def named_slots(waves: Waves) -> dict[int, Named]:
    """Slot -> name of every object present in one state [N] (presence >= 1/2, a class with a word for its shape)."""
    found = {}
    for slot in range(FIRST_OBJECT, waves.count):
        shape = SEMANTIC_CLASSES[int(waves.semantic[slot])]
        if float(waves.presence[slot]) < 0.5 or shape not in SHAPE_WORDS:
            continue
        radius = float(np.exp(np.mean(np.log(np.maximum(np.asarray(waves.scale[slot], np.float64), 1e-6)))))
        size = "small" if radius < SIZE_THRESHOLD_M else "large"
        found[slot] = Named(shape, colour_name(np.asarray(waves.colour[slot])), size)
    return found


def named(waves: Waves) -> tuple[Named, ...]:
    """The objects of one state [N] in order of their slots."""
    return tuple(named_slots(waves).values())


def facts(core: Waves, events: Sequence[dict], camera: Camera) -> SceneFacts:
    """The facts of a clip with ticks `core` [K N], measured `events` and cameras [T]."""
    slots = named_slots(core[0])
    order = list(slots)
    index = {int(core.instance[0, slot]): i for i, slot in enumerate(order)}
    right, _, forward = matrix64(np.asarray(camera.rotation)[0]).T
    relations = []
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            offset = np.asarray(core.centre[0, a]) - np.asarray(core.centre[0, b])
            # the depth that counts is along the ground
            across, along = float(offset @ right), float(offset[:2] @ forward[:2] / np.linalg.norm(forward[:2]))
            if i == j or max(abs(across), abs(along)) < 0.35:
                continue
            if abs(across) > 1.3 * abs(along):
                relations.append((i, "left" if across < 0 else "right", j))
            elif abs(along) > 1.3 * abs(across):
                relations.append((i, "front" if along < 0 else "behind", j))
    happenings = []
    for event in events:
        who, whom = index[event["instances"][0]], None
        if event["kind"] in ("hits", "lands on"):
            whom = index[event["instances"][1]]
        happenings.append((who, event["kind"], whom))
    return SceneFacts(tuple(slots.values()), tuple(relations), tuple(happenings))


def describe(scene_facts: SceneFacts, rng: np.random.Generator) -> tuple[str, ...]:
    """Two to four captions of the same facts in different words, each at most MOST_WORDS words and naming every object.

    The first is plain: the same wording for the same facts, objects in the order of their slots. The others vary.
    """
    count = int(rng.integers(2, 5))
    captions = [_Writer(scene_facts, None).caption()]
    for _ in range(12):
        text = _Writer(scene_facts, rng).caption()
        if text not in captions:
            captions.append(text)
        if len(captions) == count:
            break
    return tuple(captions)


class _Writer:
    """Writes one caption, with one synonym for each concept. Without a generator it uses the first synonyms."""

    def __init__(self, scene_facts: SceneFacts, rng: np.random.Generator | None):
        self.facts, self.rng = scene_facts, rng
        self.sizes = rng is None or rng.random() < 0.7
        self.shapes = {shape: self.pick(words) for shape, words in SHAPE_WORDS.items()}
        self.size_words = {size: self.pick(words) for size, words in SIZE_WORDS.items()}
        self.screen = self.pick(SCREEN_WORDS)
        self.mentioned: set[int] = set()

    def pick(self, options: Sequence[str]) -> str:
        return options[0] if self.rng is None else options[int(self.rng.integers(len(options)))]

    def noun(self, index: int) -> str:
        """ "a large red ball", later "the red ball"."""
        thing = self.facts.objects[index]
        new = index not in self.mentioned
        self.mentioned.add(index)
        size = [self.size_words[thing.size]] if new and self.sizes and thing.size else []
        words = [*size, thing.colour, self.shapes[thing.shape]]
        article = "the" if not new else "an" if words[0][0] in "aeiou" else "a"
        return " ".join([article, *words])

    def caption(self) -> str:
        """Names the objects first, alone or with their events; then adds relations and events up to MOST_WORDS."""
        objects = list(range(len(self.facts.objects)))
        if self.rng is not None:
            self.rng.shuffle(objects)
        # four objects with a verb each would not fit
        listed = self.rng is None or len(objects) > 3 or self.rng.random() < 0.5
        sentences = [self._list(objects)] if listed else [self._does(i, 2 if len(objects) < 3 else 1) for i in objects]
        more = [functools.partial(self._does, i, 3 if self.rng else 2) for i in objects] if listed else []
        if self.facts.relations:
            relation, place = 0, len(more)
            if self.rng is not None:
                relation = int(self.rng.integers(len(self.facts.relations)))
                place = int(self.rng.integers(len(more) + 1))
            more.insert(place, functools.partial(self._relation, relation))
        for sentence in more:
            text = sentence()
            if sum(len(s.split()) for s in [*sentences, text]) <= MOST_WORDS:
                sentences.append(text)
        return " ".join(sentences).replace(" .", ".").replace(" ,", ",")

    def _list(self, objects: list[int]) -> str:
        nouns = [self.noun(i) for i in objects]
        return " ".join([*self.pick(_OPENINGS).split(), self._join(nouns), "."])

    def _join(self, parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else f"{' , '.join(parts[:-1])} and {parts[-1]}"

    def _does(self, index: int, most: int) -> str:
        """One object and at most `most` of its events, the most specific ones."""
        mine = [(kind, whom) for who, kind, whom in self.facts.happenings if who == index]
        noun = self.noun(index)
        verbs = [self._verb(kind, whom) for kind, whom in _most_specific(mine, most)]
        return f"{noun} {self._join(verbs) if verbs else self.pick(_MORE_VERBS)} ."

    def _verb(self, kind: str, whom: int | None) -> str:
        phrase = self.pick(VERBS[kind]).replace("{screen}", self.screen)
        return phrase if whom is None else f"{phrase} {self.noun(whom)}"

    def _relation(self, index: int) -> str:
        a, relation, b = self.facts.relations[index]
        return f"{self.noun(a)} is {self.pick(RELATIONS[relation])} {self.noun(b)} ."


_RANK = ("hits", "lands on", "passes behind", "comes out", "goes behind", "is behind", "hits screen", "falls", "bounces")


def _most_specific(events_of_one: list[tuple[str, int | None]], most: int) -> list[tuple[str, int | None]]:
    """At most `most` different events, the most specific ones, in order of time."""
    kinds = list(dict.fromkeys(events_of_one))
    ranked = sorted(kinds, key=lambda d: _RANK.index(d[0]) if d[0] in _RANK else len(_RANK))
    keep = ranked[:most]
    return [d for d in kinds if d in keep]


def slots_by_mention(text: str, waves: Waves) -> tuple[int, ...]:
    """The slots of one state [N], objects in the order in which `text` first mentions them; floor and screen stay first.

    Then the k-th object named in the text is the k-th object of the core.
    """
    slots = named_slots(waves)
    order = []
    for wanted in parse(text):
        order += [slot for slot, name in slots.items() if slot not in order and name.matches(wanted)][:1]
    return (FLOOR, SCREEN, *order, *(slot for slot in range(FIRST_OBJECT, waves.count) if slot not in order))


def parse(text: str) -> tuple[Named, ...]:
    """The distinct objects that a text mentions as "[size] colour shape", in order of first mention.

    Knows every synonym and ignores other words, so it also reads texts of a model. A size at any mention counts.
    """
    shapes = {word: shape for shape, words in SHAPE_WORDS.items() for word in words}
    sizes = {word: size for size, words in SIZE_WORDS.items() for word in words}
    words = text.lower().replace(".", " . ").replace(",", " , ").split()
    found: dict[tuple[str, str], str | None] = {}
    for i, word in enumerate(words):
        if word not in shapes or i == 0 or words[i - 1] not in COLOURS:
            continue
        size = sizes[words[i - 2]] if i > 1 and words[i - 2] in sizes else None
        key = (shapes[word], words[i - 1])
        found[key] = (found[key] or size) if key in found else size
    return tuple(Named(shape, colour, size) for (shape, colour), size in found.items())


@dataclasses.dataclass(frozen=True)
class NamedObjects:
    """Reads (shape, colour) of the objects that a text names."""

    def __call__(self, text: str) -> list[tuple[str, str]]:
        """In the order of their first mention."""
        return [(one.shape, one.colour) for one in parse(text)]
