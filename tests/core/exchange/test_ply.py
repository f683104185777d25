"""PLY: all three forms of one file say the same, what is written is read, and damage is named."""

import numpy as np
import pytest

from wsm_jax.core.exchange import ply

HEADER = """ply
format {} 1.0
comment made by a test
element vertex 4
property float x
property double y
property float32 z
property uchar red
element face 2
property uchar flags
property list uchar int vertex_indices
end_header
"""
POINTS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]])


def body(order):
    rows = np.empty(4, [("x", order + "f4"), ("y", order + "f8"), ("z", order + "f4"), ("red", "u1")])
    rows["x"], rows["y"], rows["z"] = POINTS.T
    rows["red"] = [0, 1, 2, 255]
    faces = b"".join(bytes([7, len(f)]) + np.array(f, order + "i4").tobytes() for f in ([0, 1, 2], [1, 3, 2, 0]))
    return rows.tobytes() + faces


def test_ascii_and_both_byte_orders_say_the_same(tmp_path):
    text = "0 0 0 0\n1 0 0 1\n0 1 0 2\n1 1 0.5 255\n7 3 0 1 2\n7 4 1 3 2 0\n"
    forms = {"ascii": text.encode(), "binary_little_endian": body("<"), "binary_big_endian": body(">")}
    for form, data in forms.items():
        path = tmp_path / f"{form}.ply"
        path.write_bytes(HEADER.format(form).encode() + data)
        found = ply.read(path)
        np.testing.assert_array_equal(np.stack([found.vertex[n] for n in "xyz"], -1), POINTS)
        np.testing.assert_array_equal(found.vertex["red"], [0, 1, 2, 255])
        np.testing.assert_array_equal(found.faces, [[0, 1, 2], [1, 3, 2], [1, 2, 0]])


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    vertex = {"x": rng.normal(size=5).astype(np.float32), "y": rng.normal(size=5), "z": np.zeros(5, np.float32)}
    vertex["label"] = np.arange(5, dtype=np.int32)
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    ply.write(tmp_path / "a.ply", vertex, faces)
    found = ply.read(tmp_path / "a.ply")
    assert {n: v.dtype for n, v in found.vertex.items()} == {n: v.dtype for n, v in vertex.items()}
    for name, values in vertex.items():
        np.testing.assert_array_equal(found.vertex[name], values)
    np.testing.assert_array_equal(found.faces, faces)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((b"ply", b"plx"), "no PLY header"),
        ((b"element vertex 4", b"element vertex 99999999999"), "promises 99999999999 rows"),
        ((b"element face 2", b"element face 3"), "promises 3 rows"),
        ((b"element face 2", b"element face 1"), "bytes after the last element"),
        ((b"property float x", b"property string x"), "header line 'property string x'"),
        ((b"property double y", b"property float x"), "invalid or a duplicate"),
        ((b"property double y", b"property double q"), "no vertices with x, y and z"),
        ((b"end_header", b"end_heade"), "no PLY header"),
    ],
)
def test_damage_is_named_with_the_file(tmp_path, change, message):
    path = tmp_path / "damaged.ply"
    path.write_bytes((HEADER.format("binary_little_endian").encode() + body("<")).replace(*change))
    with pytest.raises(ValueError, match=message) as error:
        ply.read(path)
    assert str(path) in str(error.value)


def test_a_face_without_its_vertex_and_a_nan_are_refused(tmp_path):
    xyz = {name: np.zeros(3, np.float32) for name in "xyz"}
    ply.write(tmp_path / "a.ply", xyz, np.array([[0, 1, 3]]))
    with pytest.raises(ValueError, match="names vertex 3"):
        ply.read(tmp_path / "a.ply")
    ply.write(tmp_path / "a.ply", xyz | {"y": np.float32([0, np.nan, 0])})
    with pytest.raises(ValueError, match="'y' holds a value that is not finite"):
        ply.read(tmp_path / "a.ply")
