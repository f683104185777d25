"""RLDS datasets: episodes written after the format of TFDS come back exactly, in both layouts of features.json."""

import io
import json
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.rlds import read_rlds
from tests.core.exchange.test_scene_file import damaged
from tests.data_pipelines.recording.test_tfrecord import example, framed

ROWS, COLUMNS = 12, 16
TFDS = "tensorflow_datasets.core.features."


def picture_file(rgb, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def episode(seed: int, steps: int) -> tuple[dict, np.ndarray]:
    """The lists of one episode, and the pictures [T H W 3] of its png camera."""
    rng = np.random.default_rng(seed)
    films = rng.integers(0, 256, (steps, ROWS, COLUMNS, 3), np.uint8)
    smooth = np.broadcast_to(np.arange(COLUMNS, dtype=np.uint8)[:, None] * 9, (ROWS, COLUMNS, 3))
    words = [b"", *[f"put the cup {seed} down".encode()] * (steps - 1)]
    lists = {
        "steps/action": rng.normal(size=steps * 3).astype(np.float32),
        "steps/observation/state": rng.normal(size=steps * 2).astype(np.float32),
        "steps/observation/force": [zlib.compress(rng.normal(size=4).astype("<f8").tobytes()) for _ in range(steps)],
        "steps/observation/top": [picture_file(film, "png") for film in films],
        "steps/observation/wrist": [picture_file(smooth + np.uint8(t), "jpeg", quality=95) for t in range(steps)],
        "steps/observation/none": [picture_file(np.zeros((ROWS, COLUMNS, 3), np.uint8), "jpeg")] * steps,
        "steps/observation/grip": np.arange(steps),
        "steps/is_first": np.arange(steps) == 0,
        "steps/language_instruction": words,
        "episode_metadata/file_path": [b"/somewhere/secret"],
    }
    return {key: value.astype(np.int64) if key == "steps/is_first" else value for key, value in lists.items()}, films


LEAVES = {
    "action": ("tensor_feature.Tensor", {"shape": [3], "dtype": "float32", "encoding": "none"}),
    "observation/state": ("tensor_feature.Tensor", {"shape": [2], "dtype": "float32", "encoding": "none"}),
    "observation/force": ("tensor_feature.Tensor", {"shape": [4], "dtype": "float64", "encoding": "zlib"}),
    "observation/top": ("image_feature.Image", {"shape": [None, None, 3], "dtype": "uint8", "encoding_format": "png"}),
    "observation/wrist": ("image_feature.Image", {"shape": [ROWS, COLUMNS, 3], "dtype": "uint8", "encoding_format": "jpeg"}),
    "observation/none": ("image_feature.Image", {"shape": [ROWS, COLUMNS, 3], "dtype": "uint8", "encoding_format": "jpeg"}),
    "observation/grip": ("tensor_feature.Tensor", {"shape": [], "dtype": "int64", "encoding": "none"}),
    "is_first": ("scalar.Scalar", {"shape": [], "dtype": "bool", "encoding": "none"}),
    "language_instruction": ("text_feature.Text", {}),
}


def new_leaf(kind: str, content: dict) -> dict:
    """A `feature_pb2.Feature` as JSON: numbers are strings, an unknown size is "-1"."""
    names = {
        "tensor_feature.Tensor": "tensor",
        "scalar.Scalar": "tensor",
        "image_feature.Image": "image",
        "text_feature.Text": "text",
    }
    content = {"encodingFormat" if key == "encoding_format" else key: value for key, value in content.items()}
    if "shape" in content:
        sizes = [str(-1 if size is None else size) for size in content["shape"]]
        content["shape"] = {"dimensions": sizes} if sizes else {}
    return {"pythonClassName": TFDS + kind, names[kind]: content}


def new_group(children: dict) -> dict:
    return {"pythonClassName": TFDS + "features_dict.FeaturesDict", "featuresDict": {"features": children}}


def old_leaf(kind: str, content: dict) -> dict:
    return {"type": TFDS + kind, "content": content, "proto_cls": ""}


def old_group(children: dict) -> dict:
    return {"type": TFDS + "features_dict.FeaturesDict", "content": children, "proto_cls": ""}


def features(old: bool) -> dict:
    leaf, group = (old_leaf, old_group) if old else (new_leaf, new_group)
    step = {name: leaf(*LEAVES[name]) for name in LEAVES if "/" not in name}
    step["observation"] = group({name.split("/")[1]: leaf(*LEAVES[name]) for name in LEAVES if "/" in name})
    name = TFDS + "dataset_feature.Dataset"
    steps = {"type": name, "content": {"feature": group(step), "length": None}} if old else None
    steps = steps or {"pythonClassName": name, "sequence": {"feature": group(step), "length": "-1"}}
    return group({"steps": steps, "episode_metadata": group({"file_path": leaf("text_feature.Text", {})})})


def write(folder, shards: list[list[bytes]], old: bool = False, split: str = "train") -> None:
    (folder / "features.json").write_text(json.dumps(features(old)))
    info = {"name": "toy", "splits": [{"name": split, "shardLengths": [str(len(shard)) for shard in shards]}]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    for k, shard in enumerate(shards):
        path = folder / f"toy-{split}.tfrecord-{k:05d}-of-{len(shards):05d}"
        path.write_bytes(b"".join(map(framed, shard)))


@pytest.fixture
def toy(tmp_path):
    """Three episodes of 4, 3 and 5 steps in two files."""
    records = [example(episode(seed, steps)[0]) for seed, steps in enumerate((4, 3, 5))]
    write(tmp_path, [records[:2], records[2:]])
    return tmp_path


@pytest.mark.parametrize("old", [False, True])
def test_episodes_round_trip(toy, old):
    (toy / "features.json").write_text(json.dumps(features(old)))
    recordings = list(read_rlds(toy, 4))
    assert [r.name for r in recordings] == [f"episode {k:04d} {camera}" for k in range(3) for camera in ("top", "wrist")]
    for recording in recordings:
        seed = int(recording.name.split()[1])
        lists, films = episode(seed, (4, 3, 5)[seed])
        steps = len(films)
        np.testing.assert_array_equal(recording.time, np.arange(steps) / 4)
        assert recording.seconds == steps / 4 and recording.kind == "video" and recording.channels == ("rgb",)
        assert recording.size.tolist() == [[ROWS, COLUMNS]] * steps
        assert recording.text == (f"put the cup {seed} down",)
        assert set(recording.signals) == {"action", "state", "force"}
        np.testing.assert_array_equal(recording.signals["action"].values.ravel(), lists["steps/action"])
        np.testing.assert_array_equal(recording.signals["state"].values.ravel(), lists["steps/observation/state"])
        force = np.frombuffer(zlib.decompress(lists["steps/observation/force"][2]), "<f8")
        np.testing.assert_array_equal(recording.signals["force"].values[2], force.astype(np.float32))
        np.testing.assert_array_equal(recording.signals["action"].time, recording.time)
        shown = list(pickle.loads(pickle.dumps(recording)).pictures([0, 2, 2]))
        if recording.name.endswith("top"):
            np.testing.assert_array_equal([p["rgb"] for p in shown], films[[0, 2, 2]])
            assert set(shown[0]) == {"rgb"}
        else:
            data = [lists["steps/observation/wrist"][t] for t in (0, 2, 2)]
            assert [p["jpeg"] for p in shown] == data
            np.testing.assert_array_equal(shown[1]["rgb"], np.asarray(Image.open(io.BytesIO(data[1]))))
        assert any("none is of one colour" in note for note in recording.notes)
        assert any("steps/observation/grip (int64 [])" in note for note in recording.notes)
        assert "secret" not in str(recording.notes) + str(recording.text)


def test_the_rate_is_needed(toy):
    for rate in (None, 0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="RLDS does not state the rate of its steps; needed rate_hz"):
            read_rlds(toy, rate)


def test_splits_and_files_that_are_missing_are_said(toy):
    (toy / "toy-train.tfrecord-00000-of-00002").unlink()
    (recording, *_) = read_rlds(toy, 4)
    assert recording.name == "episode 0002 top" and "split 'train': 1 of 2 files are there" in recording.notes
    single = list(read_rlds(toy / "toy-train.tfrecord-00001-of-00002", 4))
    assert [r.name for r in single] == ["episode 0002 top", "episode 0002 wrist"]
    (toy / "toy-val.tfrecord-00000-of-00001").write_bytes(framed(example(episode(7, 2)[0])))
    names = [r.name for r in read_rlds(toy, 4)]
    assert names[0] == "train episode 0002 top" and names[-1] == "val episode 0000 wrist"
    (toy / "dataset_info.json").unlink()
    assert len(list(read_rlds(toy, 4))) == 4


def rewritten(toy, **changes):
    """The first episode, with some of its lists changed or (None) taken away."""
    lists = episode(0, 4)[0] | {key.replace("__", "/"): value for key, value in changes.items()}
    write(toy, [[example({key: value for key, value in lists.items() if value is not None})]])
    return toy


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps__action": np.zeros(11, np.float32)}, "steps/action has 11 values; needed 3 at each of 4 steps"),
        ({"steps__action": np.float32([0] * 7 + [np.nan] + [0] * 4)}, "steps/action is not finite at step 2"),
        ({"steps__action": [b"x"] * 12}, "steps/action has 12 values; needed 3"),
        ({"steps__action": None}, "has no steps/action, of which features.json speaks"),
        ({"steps__observation__force": [b"x"] * 4}, "steps/observation/force is not encoded as zlib"),
        ({"steps__observation__force": [zlib.compress(bytes(10**6))] * 4}, "a step has 33 bytes; needed 32"),
        ({"steps__observation__top": [b"no picture"] * 4}, "steps/observation/top at step 0: is no jpg, png or webp picture"),
        ({"steps__observation__top": []}, "needed pictures of every camera at every step"),
        ({"steps__observation__wrist": [b""] * 3}, "needed pictures of every camera at every step"),
        (
            {"steps__observation__wrist": [picture_file(np.zeros((4, k + 4, 3), np.uint8), "png") for k in range(4)]},
            r"wrist at step 0 is \[4 4\] pixels; features.json promises \[12 16\]",
        ),
    ],
)
def test_episodes_that_do_not_fit_are_refused_by_file_and_feature(toy, changes, words):
    (toy / "toy-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(ValueError, match=words) as caught:
        list(read_rlds(rewritten(toy, **changes), 4))
    assert "toy-train.tfrecord-00000-of-0000" in str(caught.value) and "episode 0000" in str(caught.value)


def test_transparency_is_said(toy):
    (toy / "toy-train.tfrecord-00001-of-00002").unlink()
    films = np.random.default_rng(0).integers(0, 256, (4, ROWS, COLUMNS, 4), np.uint8)
    top = next(read_rlds(rewritten(toy, steps__observation__top=[picture_file(film, "png") for film in films]), 4))
    assert "it is transparent in parts, which are black" in top.notes
    np.testing.assert_array_equal(
        next(top.pictures([3]))["rgb"], np.rint(films[3, ..., :3] * (np.float32(films[3, ..., 3:]) / 255))
    )


def test_folders_that_are_none_are_named(toy):
    (toy / "dataset_info.json").write_text(json.dumps({"splits": [{"name": "train", "shardLengths": ["3", "1"]}]}))
    with pytest.raises(ValueError, match=r"00000-of-00002: holds 2 episodes; dataset_info\.json promises 3"):
        list(read_rlds(toy, 4))
    (toy / "dataset_info.json").write_text("[1")
    with pytest.raises(ValueError, match=r"dataset_info\.json: is no description of a dataset"):
        read_rlds(toy, 4)
    (toy / "dataset_info.json").unlink()
    (toy / "toy-train.tfrecord-00000-of-00002").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no episodes \(0 bytes\)"):
        list(read_rlds(toy, 4))
    for tree, words in (
        (new_group({"image": new_leaf(*LEAVES["observation/top"])}), "no RLDS dataset, whose episodes hold a dataset 'steps'"),
        ({"featuresDict": {}}, "describes no features"),
        ([], "describes no features"),
    ):
        (toy / "features.json").write_text(json.dumps(tree))
        with pytest.raises(ValueError, match=rf"features\.json: .*{words}"):
            read_rlds(toy, 4)
    (toy / "features.json").write_text("[" * 100000)
    with pytest.raises(ValueError, match="describes no features"):
        read_rlds(toy, 4)
    (toy / "features.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"features\.json: no such file"):
        read_rlds(toy, 4)
    (toy / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no tfrecord files"):
        read_rlds(toy / "empty", 4)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        read_rlds(toy / "nowhere", 4)


def test_real_episodes(real_data):
    recordings = list(read_rlds(real_data / "robot", 5.0))
    assert (
        len(recordings) == 75 and recordings[0].name == "episode 0000 image_0" and recordings[-1].name == "episode 0024 image_2"
    )
    for recording in recordings:
        assert recording.signals["action"].values.shape == recording.signals["state"].values.shape == (10, 7)
        assert len(recording.text) == 1 and len(recording.text[0].split()) >= 4
        picture = next(recording.pictures([0]))
        assert picture["rgb"].shape == (64, 64, 3) and picture["rgb"].std() > 10
        np.testing.assert_array_equal(picture["rgb"], np.asarray(Image.open(io.BytesIO(picture["jpeg"]))))
        assert "split 'val': 0 of 1 files are there" in recording.notes
        assert any("image_3 is of one colour" in note for note in recording.notes)
    assert len({recording.text for recording in recordings}) == 4


def test_damaged_datasets_are_read_or_refused(tmp_path):
    names = ("features.json", "dataset_info.json", "toy-train.tfrecord-00000-of-00001")
    write(tmp_path, [[example(episode(0, 3)[0])]])
    whole, refused = {name: (tmp_path / name).read_bytes() for name in names}, 0
    for n in range(450):
        for name in names:
            (tmp_path / name).write_bytes(whole[name])
        name = names[n % 3]
        (tmp_path / name).write_bytes(damaged(np.random.default_rng(n), whole[name], n // 3 % 4))
        message = None
        try:
            for recording in read_rlds(tmp_path, 4):
                assert len(list(recording.pictures(range(3)))) == 3
        except (ValueError, FileNotFoundError) as error:
            message = str(error)
        assert message is None or str(tmp_path) in message
        refused += message is not None
    assert refused > 200


def test_damaged_messages_and_pictures_are_read_or_refused(tmp_path):
    """Damage that the checksum does not see, since it is computed after it."""
    whole, refused = example(episode(0, 3)[0]), 0
    for n in range(300):
        write(tmp_path, [[damaged(np.random.default_rng(n), whole, n % 2 + n // 2 % 2)]])
        message = None
        try:
            for recording in read_rlds(tmp_path, 4):
                assert len(list(recording.pictures(range(3)))) == 3
        except ValueError as error:
            message = str(error)
        assert message is None or str(tmp_path) in message
        refused += message is not None
    assert refused > 100
