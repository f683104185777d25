"""Codes beside the clips: every row gets those of its clip, a dataset without them is marked, and what is missing is named."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.latents import POINTER, WRITTEN, LatentPointer, read_pointer, write_pointer
from data_pipelines.wsv import write_latents
from data_pipelines.wsv.manifest import arrays
from tests.data_pipelines.loading.test_loader import CORES, SIM, write

CODES = np.random.default_rng(0).normal(size=(10, 4, 2)).astype(np.float32)
ASK: dict[str, Any] = {
    "sources": (("sim", 1.0), ("cores", 1.0)),
    "waves": 5,
    "ticks": 4,
    "latents": (("style", "bridge", (4, 2)),),
}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A dataset with codes, and one for which there are none."""
    write(tmp_path / "sim", SIM)
    write(tmp_path / "cores", CORES)
    write_latents(tmp_path / "sim", "style_1", CODES, {"step": 1})
    (tmp_path / "bridge").mkdir()
    said = {str(tmp_path / "sim"): WRITTEN, str(tmp_path / "cores"): "no rgb"}
    write_pointer(tmp_path / "bridge", {"style": LatentPointer("style_1", said)})
    return tmp_path


def test_rows_get_the_codes_of_their_clips(workdir: Path):
    for hosts, threads in ((1, 0), (2, 1)):
        loaders = [Clips(**ASK, threads=threads).open(workdir, rows=4, seed=0, host=h, hosts=hosts) for h in range(hosts)]
        for batch in (next(loader) for _ in range(4) for loader in loaders):
            has = batch["source"] == 0
            np.testing.assert_array_equal(batch["known"]["style"], has)
            wanted = np.where(has[:, None, None], CODES[batch["clip"]], 0)
            np.testing.assert_array_equal(batch["latents"]["style"], wanted)
            assert batch["latents"]["style"].dtype == np.float32


def test_the_clip_that_replaces_a_damaged_one_brings_its_own_codes(workdir: Path):
    (workdir / "sim" / arrays(SIM)["core"].file(1)).write_bytes(b"")
    clips = Clips(**{**ASK, "sources": (("sim", 1.0),)}, damaged="skip")
    loader = clips.open(workdir, rows=5, seed=0, epochs=1)
    for batch in loader:
        np.testing.assert_array_equal(batch["latents"]["style"], CODES[batch["clip"]])
    assert loader.skipped


def test_half_precision_comes_as_float32(workdir: Path):
    write_latents(workdir / "sim", "style_1", CODES.astype(np.float16), {}, overwrite=True)
    batch = next(Clips(**{**ASK, "sources": (("sim", 1.0),)}).open(workdir, rows=4, seed=0))
    assert batch["latents"]["style"].dtype == np.float32
    np.testing.assert_array_equal(batch["latents"]["style"], CODES.astype(np.float16)[batch["clip"]])


def test_the_spec_has_the_codes():
    spec = Clips(**ASK).spec(6)
    assert (spec["latents"]["style"].shape, spec["known"]["style"].shape) == ((6, 4, 2), (6,))


def test_what_is_not_encoded_is_named_with_the_command(workdir: Path):
    command = f"run python -m launch.data encode --workdir={workdir} --stage=bridge"

    def refused(kind: type[Exception], words: str, **changes: Any) -> None:
        with pytest.raises(kind) as error:
            Clips(**{**ASK, **changes}).open(workdir, rows=2, seed=0)
        assert words in str(error.value), error.value
        assert command in str(error.value) or "ask for" in words

    refused(ValueError, "no latents 'look'", latents=(("look", "bridge", (4, 2)),))
    refused(ValueError, "are [4, 2] a clip, the clips ask for [4, 3]", latents=(("style", "bridge", (4, 3)),))
    write(workdir / "new", dataclasses.replace(SIM, clips=5))
    refused(ValueError, f"{workdir / 'new'} is not encoded", sources=(("new", 1.0),))
    write_pointer(workdir / "bridge", {"style": LatentPointer("style_2", {str(workdir / "sim"): WRITTEN})})
    refused(ValueError, "no latents 'style_2', though", sources=(("sim", 1.0),))
    (workdir / "bridge" / POINTER).unlink()
    refused(FileNotFoundError, "bridge/latents.json: missing")


def test_the_pointer_keeps_other_keys_and_has_the_agreed_form(tmp_path: Path):
    style = LatentPointer("style_1", {"/data/sim": WRITTEN, "s3://bucket/real/": "no rgb"})
    assert read_pointer(tmp_path, "style") is None
    write_pointer(tmp_path, {"style": style})
    write_pointer(tmp_path, {"look": LatentPointer("look_1", {})})
    assert json.loads((tmp_path / POINTER).read_bytes()) == {
        "style": {"name": "style_1", "datasets": {"/data/sim": "written", "s3://bucket/real": "no rgb"}},
        "look": {"name": "look_1", "datasets": {}},
    }
    found = read_pointer(tmp_path, "style")
    assert found == LatentPointer("style_1", {"/data/sim": "written", "s3://bucket/real": "no rgb"})
    (tmp_path / POINTER).write_text("[]")
    with pytest.raises(ValueError, match=r"latents.json: damaged"):
        read_pointer(tmp_path, "style")
