"""Text as tokens and back, without loss: a list of known words, and bytes for everything else."""

import dataclasses
import re

import numpy as np

from wsm_jax.typing import Float, Int, NpOrJax, Shaped, UInt8

PAD = 0
_BYTES = 1
_WORDS = _BYTES + 256
_MULTIPLE = 128
CODE_SEED = 8
CAPTION_BYTES = 512
"""Longest caption, in bytes of UTF-8; the length of the array that holds one, padded with zeros."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Token 0 is padding, 1..256 are bytes, then each known word twice: as it is, and after a space.

    Raises ValueError for a length below 1.
    """

    words: tuple[str, ...]
    length: int
    """Tokens of a text, padded."""

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length = {self.length}: needed at least 1")

    @property
    def size(self) -> int:
        """Number of token ids, rounded up to a multiple of 128, so that the vocabulary divides over a mesh."""
        return -(-(_WORDS + 2 * len(self.words)) // _MULTIPLE) * _MULTIPLE

    def encode(self, text: str) -> Int[np.ndarray, " L"]:
        """`length` token ids. Raises ValueError for a text that is empty or does not fit."""
        if not text.strip():
            raise ValueError("the text is empty; needed a description such as 'a red ball rolls behind a blue box'")
        index = {word: i for i, word in enumerate(self.words)}
        ids: list[int] = []
        for space, piece in re.findall(r"( ?)(\w+|[^\w ]|(?= )|$)", text):
            if piece in index:
                ids.append(_WORDS + 2 * index[piece] + bool(space))
            else:
                ids.extend(_BYTES + byte for byte in (space + piece).encode())
        if len(ids) > self.length:
            raise ValueError(
                f"the text takes {len(ids)} tokens, at most {self.length} fit; shorten it, or use known words, "
                f"which take one token each: {', '.join(self.words[:12])}, ..."
            )
        return np.asarray(ids + [PAD] * (self.length - len(ids)), np.int32)

    def decode(self, ids: Int[np.ndarray, " L"]) -> str:
        """The text of token ids; unused ids are skipped, bytes that are not UTF-8 become the replacement character."""
        out = b""
        for token in np.asarray(ids):
            if _BYTES <= token < _WORDS:
                out += bytes([int(token) - _BYTES])
            elif _WORDS <= token < _WORDS + 2 * len(self.words):
                word, space = divmod(int(token) - _WORDS, 2)
                out += (" " * space + self.words[word]).encode()
        return out.decode("utf-8", "replace")


def codebook(size: int, width: int) -> Float[np.ndarray, "V E"]:
    """Fixed random codes of unit variance, one per token: the space in which text flows."""
    return np.random.default_rng(CODE_SEED).standard_normal((size, width)).astype(np.float32)


def encode_caption(text: str, where: str) -> UInt8[np.ndarray, " L"]:
    """UTF-8 bytes padded with zeros to CAPTION_BYTES. Raises ValueError, naming `where`, when they are more."""
    data = text.encode()
    if len(data) > CAPTION_BYTES:
        raise ValueError(f"{where}: a caption has {len(data)} UTF-8 bytes, at most {CAPTION_BYTES} fit: {text[:60]!r}...")
    padded = np.zeros(CAPTION_BYTES, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return padded


def decode_caption(data: Shaped[NpOrJax, " L"]) -> str:
    """Inverse of `encode_caption`."""
    return np.asarray(data, np.uint8).tobytes().rstrip(b"\0").decode()
