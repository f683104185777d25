"""Sizes of the groups agree with each other."""

import jax
import numpy as np
import pytest

from wsm_jax.core import vector
from wsm_jax.models.world_flow.state import GROUPS, WorldLayout
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.text import Tokenizer

LAYOUT = WorldLayout(Tokenizer(("a",), 5), text_code=3, ticks=8, tick_patch=4, waves=2, style_code=6)


def test_tokens_are_text_chunks_and_styles():
    assert LAYOUT.tokens == 5 + 2 * 2 + 3
    assert {name: x.shape for name, x in LAYOUT.zeros(7).items()} == LAYOUT.shapes(7)
    assert tuple(LAYOUT.shapes(1)) == GROUPS


def test_the_core_of_a_batch_becomes_the_core_group():
    batch = LAYOUT.batch(3)
    assert set(batch["core"]) == set(FIELDS)
    core = jax.eval_shape(lambda fields: vector.to_vector(Waves(**fields)), batch["core"])
    assert core.shape == LAYOUT.shapes(3)["core"]
    assert batch["latents"]["style"].shape == LAYOUT.shapes(3)["style"] and batch["tokens"].dtype == np.int32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ticks": 6}, "multiple of tick_patch 4"),
        ({"ticks": 4}, "two of them"),
        ({"waves": 0}, "waves = 0"),
        ({"tick_patch": 0}, "tick_patch = 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, words):
    fields = {"text": LAYOUT.text, "text_code": 3, "ticks": 8, "tick_patch": 4, "waves": 2, "style_code": 6}
    with pytest.raises(ValueError, match=words):
        WorldLayout(**{**fields, **changes})
