"""The leaves of features.json are cameras, signals or instructions by their kind, shape and place."""

import json

import pytest

from data_pipelines.recording.rlds_features import Feature, read_features


def feature(key, kind="tensor", shape=(3,), dtype="float32", nesting=1) -> Feature:
    return Feature(key, kind, shape, dtype, "none", nesting)


def test_roles_follow_from_kind_shape_and_place():
    camera = feature("steps/observation/top", "image", (8, 8, 3), "uint8")
    assert camera.is_camera and not camera.is_signal and camera.name == "top"
    assert not feature("steps/observation/depth", "image", (8, 8, 3), "uint16").is_camera
    assert not feature("steps/observation/top", "image", (8, 8, 3), "uint8", 2).is_camera
    for key in ("steps/action", "steps/observation/state", "steps/action/arm"):
        assert feature(key).is_signal and feature(key, shape=()).is_signal
    assert not feature("steps/reward").is_signal
    assert not feature("steps/action", dtype="int64").is_signal
    assert not feature("steps/action", shape=(2, 2)).is_signal
    assert feature("steps/language_instruction", "text", (), "string").is_instruction
    assert feature("steps/natural_language", "tensor", (), "string", 0).is_instruction
    assert not feature("steps/language_embedding", "tensor", (512,), "float32").is_instruction


def test_what_is_no_rlds_is_named(tmp_path):
    path = tmp_path / "features.json"
    with pytest.raises(FileNotFoundError, match=r"features\.json: no such file"):
        read_features(path)
    leaf = {"pythonClassName": "x.Tensor", "tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float32"}}
    tree = {"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {"state": leaf}}}
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"features\.json: is of no RLDS dataset.*its features are state"):
        read_features(path)
    steps = {"pythonClassName": "x.Dataset", "sequence": {"feature": tree}}
    path.write_text(json.dumps({"pythonClassName": "x.FeaturesDict", "featuresDict": {"features": {"steps": steps}}}))
    with pytest.raises(ValueError, match="needed 8-bit pictures among the features of a step; they are steps/state"):
        read_features(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match=r"features\.json: describes no features"):
        read_features(path)
