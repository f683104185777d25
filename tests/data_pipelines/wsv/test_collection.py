"""collection.json names its datasets, and is refused when it is damaged and rebuilt from what is there."""

import dataclasses
import json

import pytest

from data_pipelines.wsv import collection, create
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.datasets import SOURCES, fill
from tests.data_pipelines.wsv.random_clips import BUILD, TEXT, make_clip


def test_a_collection_names_its_datasets(tmp_path):
    folder = Folder(tmp_path)
    assert collection.datasets(folder) == [str(tmp_path)]
    collection.write(folder, "both", {"b": 3, "a": 5})
    assert collection.datasets(folder) == [f"{tmp_path}/a", f"{tmp_path}/b"]
    good = json.loads((tmp_path / "collection.json").read_bytes())
    bad = [good | {"format": "wsm_wsv"}, good | {"schema_version": "2"}, good | {"datasets": [{}]}, [], 3, {}]
    for value in bad:
        (tmp_path / "collection.json").write_text(json.dumps(value))
        with pytest.raises(ValueError, match=r"collection\.json: damaged"):
            collection.datasets(folder)
    (tmp_path / "collection.json").write_text(json.dumps(good | {"schema_version": 3}))
    with pytest.raises(ValueError, match="schema version 3, this release reads up to version 2; update"):
        collection.datasets(folder)


def test_a_damaged_collection_is_rebuilt_from_the_datasets_below(tmp_path):
    for part, clips in {"a": 2, "b": 3}.items():
        layout = dataclasses.replace(TEXT, clips=clips)
        writer = create(tmp_path / part, layout, name=f"both/{part}", sources=SOURCES, build=BUILD)
        fill(writer, lambda index, layout=layout: make_clip(layout, index))
    folder = Folder(tmp_path)
    collection.write(folder, "both", {"a": 2, "b": 3})
    before = (tmp_path / "collection.json").read_bytes()
    assert not collection.damaged(folder) and collection.below(folder) == ["a", "b"]
    for broken in (before[:-5], None):
        (tmp_path / "collection.json").unlink()
        if broken is not None:
            (tmp_path / "collection.json").write_bytes(broken)
        assert collection.damaged(folder)
        assert "rebuilt, by the 2 datasets" in collection.restore(folder)
        assert (tmp_path / "collection.json").read_bytes() == before
