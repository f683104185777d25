"""A synthetic scene of known points and photos, and where a reconstruction of it sees them."""

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from tests.core.exchange.test_scene_file import damaged
from wsm_jax.snapshot import project

POINTS = np.random.default_rng(3).uniform(-1, 1, (40, 3))
VIEWS = 3
TURNS = Rotation.random(VIEWS, rng=np.random.default_rng(4)).as_matrix()
"""World to camera."""
SHIFTS = np.array([[0.1, -0.2, 4.0], [-0.3, 0.1, 4.5], [0.2, 0.3, 5.0]])
ROWS, COLUMNS = 48, 64
NAMES = ("a10.jpg", "a2.png", "b/a1.jpg")
"""In the order of views 0, 1, 2; sorted naturally they are 1, 0, 2."""
ORDER = (1, 0, 2)
LENS = {"fx": 60.0, "fy": 54.0, "cx": 34.5, "cy": 20.25}
CENTRED = {"fx": 60.0, "fy": 60.0, "cx": 32.0, "cy": 24.0}
BEND = {"k1": 0.11, "k2": -0.04, "p1": 0.013, "p2": -0.021, "k3": 0.02}


def pixels(view, fx=60.0, fy=54.0, cx=34.5, cy=20.25, k1=0.0, k2=0.0, p1=0.0, p2=0.0, k3=0.0):
    """Where a photo shows POINTS [n 2], by the formulae of OpenCV, from the upper left corner."""
    local = POINTS @ TURNS[view].T + SHIFTS[view]
    x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
    s = x**2 + y**2
    radial = 1 + k1 * s + k2 * s**2 + k3 * s**3
    bent = (x * radial + 2 * p1 * x * y + p2 * (s + 2 * x**2), y * radial + p1 * (s + 2 * y**2) + 2 * p2 * x * y)
    return np.stack([fx * bent[0] + cx, fy * bent[1] + cy], -1)


def shown(recording, index):
    """Where the camera of a recording sees POINTS in its picture, in pixels of it."""
    rows, columns = recording.size[index]
    aspect = recording.pixel_aspect
    canvas, depth = project(recording.camera[index], POINTS, float(columns * aspect / rows))
    assert (np.asarray(depth) > 0).all()
    return np.asarray(canvas) * rows / [aspect, 1.0]


def check(recording, lenses):
    """Every view shows the points at the pixels of its lens, by the order of names; its picture is the one it names."""
    assert (recording.kind, recording.seconds, recording.time.tolist()) == ("views", len(lenses), list(range(len(lenses))))
    for index, picture in enumerate(recording.pictures(range(len(lenses)))):
        view = ORDER[index]
        np.testing.assert_allclose(shown(recording, index), pixels(view, **lenses[view]), atol=2e-3)
        assert picture["rgb"].shape == (*recording.size[index], 3) == (ROWS, COLUMNS, 3)
        assert abs(picture["rgb"].mean() - level(view)) < 2
        assert ("jpeg" in picture) == NAMES[view].endswith(".jpg")


def level(view):
    return 40 * (view + 1)


def write_photos(folder):
    """The photos of all views, below `folder`; returns it."""
    for view, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((ROWS, COLUMNS, 3), level(view), np.uint8)).save(folder / name)
    return folder


def refusals(read, folder, files, ways=7):
    """How many of 280 times `read` refuses, one of the files in `folder` being damaged; every error names the folder."""
    refused, whole = 0, [file.read_bytes() for file in files]
    for n in range(280):
        which, way = n % len(files), n // len(files) % ways
        files[which].write_bytes(_damaged(np.random.default_rng(n), whole[which], way))
        message = None
        try:
            read(folder)
        except (ValueError, OSError) as error:
            message = str(error)
        assert message is None or str(folder) in message
        refused += message is not None
        files[which].write_bytes(whole[which])
    return refused


def _damaged(rng, data, way):
    """As `damaged`, or a line of it dropped, doubled or emptied."""
    if way < 4:
        return damaged(rng, data, way)
    lines = data.split(b"\n")
    i = int(rng.integers(len(lines)))
    lines[i : i + 1] = [[], [lines[i]] * 2, [b""]][way - 4]
    return b"\n".join(lines)
