"""What `Clips` refuses, where it finds datasets, and that its spec is what a loader delivers."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.transforms import Keep, Tokenise
from data_pipelines.simulation.mention import MentionOrder
from data_pipelines.wsv import collection
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.loading.test_loader import CORES, SIM, write
from wsm_jax.text import Tokenizer

ASK: dict[str, Any] = {"sources": (("sim", 1.0),), "waves": 3}


@pytest.fixture
def unchecked():
    """Annotations that are not executed, as outside of tests: what is wrong reaches the class."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("workdir")
    write(path / "sim", SIM)
    write(path / "both" / "a", SIM)
    write(path / "both" / "b", dataclasses.replace(SIM, clips=5))
    collection.write(Folder(path / "both"), "both", {"a": 10, "b": 5})
    return path


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("sources", (), "at least one dataset"),
        ("sources", ("sim",), "pairs"),
        ("sources", (("sim", 0.0),), "positive"),
        ("sources", (("sim", True),), "positive"),
        ("sources", "sim", "sequence"),
        ("waves", 0, "at least 1"),
        ("height", 0, "at least 1"),
        ("width", 2.0, "whole number"),
        ("frames", -1, "at least 0"),
        ("ticks", -1, "at least 0"),
        ("threads", -1, "at least 0"),
        ("frame_hz", 0.0, "above 0"),
        ("crop", "top", "middle"),
        ("damaged", "ignore", "skip"),
        ("channels", ("infrared",), "infrared"),
        ("signals", (("action", 0),), "components"),
        ("latents", (("style", "bridge"),), "shape"),
        ("latents", (("style", "bridge", 7),), "shape"),
        ("latents", (("core", "bridge", (7,)),), "own"),
        ("transforms", (3,), "functions"),
    ],
)
def test_wrong_values_are_refused_by_the_name_of_their_field(unchecked, field: str, value: Any, words: str):
    with pytest.raises(ValueError, match=rf"Clips\.{field}.*{words}"):
        Clips(**{**ASK, field: value})


def test_lists_become_tuples_and_weights_floats(unchecked):
    clips = Clips(sources=[["sim", 1]], waves=3, channels=["rgb"], latents=[["style", "bridge", [4, 8]]])  # type: ignore
    assert clips == Clips(sources=(("sim", 1.0),), waves=3, channels=("rgb",), latents=(("style", "bridge", (4, 8)),))
    assert hash(clips) == hash(dataclasses.replace(clips))


def test_relative_paths_lie_in_the_workdir_and_collections_are_expanded(workdir: Path):
    sources = (("sim", 2.0), (str(workdir / "sim"), 1.0), ("both", 3.0))
    found = Clips(sources=sources, waves=3).datasets(workdir)
    names = [workdir / "sim", workdir / "sim", workdir / "both" / "a", workdir / "both" / "b"]
    assert [(Path(one.path), one.weight) for one in found] == list(zip(names, [2.0, 1.0, 2.0, 1.0], strict=True))


def test_a_missing_dataset_is_named_with_the_command_that_builds_it(workdir: Path):
    clips = Clips(sources=(("data/none", 1.0),), waves=3)
    with pytest.raises(FileNotFoundError, match=r"data/none: no such dataset; build it with python -m launch.data simulate"):
        clips.datasets(workdir)
    with pytest.raises(FileNotFoundError, match="no such dataset"):
        clips.open(workdir, rows=2, seed=0)


TRANSFORMS = {
    "none": (),
    "bridge": (Keep(("channels", "known")),),
    "world": (Tokenise(Tokenizer(("clip", "number"), 12)), MentionOrder(latents=())),
}


@pytest.mark.parametrize("transforms", TRANSFORMS.values(), ids=TRANSFORMS)
def test_the_spec_is_that_of_the_batches(workdir: Path, transforms: tuple):
    clips = Clips(
        sources=(("sim", 1.0),),
        waves=4,
        channels=("rgb", "depth", "ground"),
        frames=3,
        frame_hz=8.0,
        height=8,
        width=8,
        ticks=4,
        signals=(("action", 2),),
        events=("hits",),
        transforms=transforms,
    )
    batch = next(clips.open(workdir, rows=4, seed=0))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), batch)
    assert jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), clips.spec(4)) == shapes
    half = next(clips.open(workdir, rows=8, seed=0, host=1, hosts=2))
    assert jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), half) == shapes


def test_a_spec_needs_no_file():
    clips = Clips(sources=(("nowhere", 1.0),), waves=CORES.waves, ticks=4, transforms=TRANSFORMS["world"])
    spec = clips.spec(6)
    assert spec["tokens"].shape == (6, 12) and spec["core"]["centre"].shape == (6, 4, 5, 3)
