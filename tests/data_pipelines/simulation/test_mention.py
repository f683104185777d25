"""Transforms of whole batches equal, bit for bit, what was done example by example."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.transforms import Tokenise
from data_pipelines.simulation.captions import VOCABULARY, slots_by_mention
from data_pipelines.simulation.mention import MentionOrder
from data_pipelines.simulation.simulate import simulate
from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import Waves
from wsm_jax.text import Tokenizer, decode_caption

WAVES, WIDTH = 6, 8
TOKENIZER = Tokenizer(VOCABULARY, 60)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("workdir")
    size: dict[str, Any] = {"height": 16, "width": 16, "frame_hz": 4.0, "seconds": 2.0, "workers": 1, "progress": False}
    simulate(path / "train", scenes=8, seed=1, pixels=False, **size)
    return path


def styles(workdir: Path) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(Dataset(workdir / "train")), WAVES + 1, WIDTH)).astype(np.float32)


def one_by_one(batch: dict[str, Any], style: np.ndarray) -> dict[str, Any]:
    """The reference: each example by itself, then stacked."""

    def keep(example: dict[str, Any]) -> dict[str, Any]:
        text, core = decode_caption(example["caption"]), Waves(**example["core"])
        order = np.asarray(slots_by_mention(text, core[0]))
        return {
            "tokens": TOKENIZER.encode(text) if text else np.zeros(TOKENIZER.length, np.int32),
            "core": vars(core[:, order]),
            "style": style[int(example["clip"])][[*order, WAVES]],
        }

    examples = [keep(jax.tree.map(lambda leaf, row=row: leaf[row], batch)) for row in range(len(batch["clip"]))]
    return jax.tree.map(lambda *parts: np.stack(parts), *examples)


@pytest.mark.parametrize("first_caption", [True, False])
def test_batches_equal_the_examples_one_by_one(workdir: Path, first_caption: bool):
    style = styles(workdir)

    def add_style(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "latents": {"style": style[batch["clip"]]}}

    clips: dict[str, Any] = {"sources": (("train", 1.0),), "waves": WAVES, "ticks": 8, "first_caption": first_caption}
    plain = Clips(**clips).open(workdir, rows=6, seed=3)
    ready = Clips(**clips, transforms=(add_style, MentionOrder(), Tokenise(TOKENIZER))).open(workdir, rows=6, seed=3)
    moved = False
    for _ in range(6):
        before, batch = next(plain), next(ready)
        wanted = one_by_one(before, style)
        found = {"tokens": batch["tokens"], "core": batch["core"], "style": batch["latents"]["style"]}
        pairs = jax.tree.map(lambda a, b: (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), found, wanted)
        assert all(jax.tree.leaves(pairs)), pairs
        moved |= bool((batch["core"]["centre"] != before["core"]["centre"]).any())
    assert moved or first_caption


def test_rows_without_text_have_no_tokens_and_keep_their_order(workdir: Path):
    batch = next(Clips(sources=(("train", 1.0),), waves=WAVES, ticks=2).open(workdir, rows=4, seed=0))
    batch["caption"][1] = 0
    found = MentionOrder(latents=())(Tokenise(TOKENIZER)(batch))
    assert not found["tokens"][1].any() and found["tokens"][0].any()
    np.testing.assert_array_equal(found["core"]["centre"][1], batch["core"]["centre"][1])


@pytest.mark.parametrize("shape", [(2, 0, 4), (2, 3, 1)])
def test_a_core_without_ticks_or_objects_is_refused(shape: tuple[int, int, int]):
    batch = {"caption": np.zeros((2, 8), np.uint8), "core": {"presence": np.zeros(shape, np.float32)}}
    with pytest.raises(ValueError, match=rf"{shape[1]} ticks and {shape[2]} waves"):
        MentionOrder(latents=())(batch)
