"""Any text comes back as it was; known words take one token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsm_jax.text import CAPTION_BYTES, PAD, Tokenizer, codebook, decode_caption, encode_caption

WORDS = ("a", "red", "ball", "rolls", "behind", "blue", "box", ".", ",")
TOKENIZER = Tokenizer(WORDS, 512)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=100).filter(str.strip))
def test_round_trip_of_any_text(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=20))
def test_known_words_take_one_token(words):
    ids = TOKENIZER.encode(" ".join(words))
    assert np.count_nonzero(ids != PAD) == len(words)
    assert ids.max() < TOKENIZER.size


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text_is_refused(text):
    with pytest.raises(ValueError, match="text is empty"):
        TOKENIZER.encode(text)


def test_long_text_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"takes 9 tokens, at most 4 fit"):
        Tokenizer(WORDS, 4).encode("a red ball rolls behind a blue box .")


def test_codes_are_far_apart_and_fixed():
    codes = codebook(400, 32)
    gaps = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 100 * np.eye(400)
    assert gaps.min() > 3.0
    np.testing.assert_array_equal(codes, codebook(400, 32))


def test_captions_come_back_and_long_ones_are_refused():
    for text in ("", "a red ball", "ein grüner Würfel 🎲", "x" * CAPTION_BYTES):
        data = encode_caption(text, "d")
        assert data.shape == (CAPTION_BYTES,)
        assert data.dtype == np.uint8
        assert decode_caption(data) == text
    with pytest.raises(ValueError, match=r"d clip 1: a caption has 514 UTF-8 bytes, at most 512"):
        encode_caption("ü" * 257, "d clip 1")
