"""Transforms of whole batches; data_pipelines/simulation/test_mention.py compares them with examples one by one."""

from typing import Any

import numpy as np
import pytest

from data_pipelines.loading.transforms import Keep, Tokenise, Transform
from wsm_jax.text import Tokenizer, encode_caption

TOKENIZER = Tokenizer(("red", "ball"), 6)
TEXTS = ("red ball", "", "a")


def batch() -> dict[str, Any]:
    return {"caption": np.stack([encode_caption(text, "test") for text in TEXTS]), "clip": np.arange(3)}


def test_captions_become_tokens_row_by_row():
    found = Tokenise(TOKENIZER)(before := batch())
    assert found["tokens"].dtype == np.int32 and found["tokens"].shape == (3, 6)
    assert [TOKENIZER.decode(row) for row in found["tokens"]] == list(TEXTS)
    assert "tokens" not in before and set(found) == {"caption", "clip", "tokens"}


def test_a_text_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="at most 1 fit"):
        Tokenise(Tokenizer(("red", "ball"), 1))(batch())


def test_only_the_named_entries_are_kept():
    assert list(Keep(("clip",))(batch())) == ["clip"]
    with pytest.raises(KeyError, match="core"):
        Keep(("core",))(batch())


@pytest.mark.parametrize("transform", [Keep(("clip",)), Tokenise(TOKENIZER)])
def test_transforms_are_values(transform: Transform):
    assert isinstance(transform, Transform) and hash(transform) == hash(type(transform)(**vars(transform)))
