"""The panel of the viewer, and in a real browser: a wave dragged with the mouse moves in the core."""

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.view.viewer_input import ViewerInput
from tests.launch.view.conftest import BLUE, RED
from wsm_jax.snapshot import Camera, look_at, project
from wsm_jax.snapshot import waves as core_json

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
DEADLINE_S = 180.0
WINDOW = (720, 400)


def until(holds, what: str):
    """Waits until `holds()` is true and gives its value; fails at the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not (value := holds()):
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.05)
    return value


class Browser:
    """A headless Chromium with one page, driven by its DevTools protocol."""

    def __init__(self, url: str, folder: Path):
        from websockets.sync.client import connect

        self._log = (folder / "chromium.log").open("wb")
        flags = ["--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        flags += ["--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder}/profile"]
        assert CHROMIUM is not None
        self._process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stdout=self._log, stderr=self._log)
        try:
            where = folder / "profile" / "DevToolsActivePort"
            port = until(lambda: where.exists() and where.read_text().split("\n")[0], "Chromium started")
            self._calls, self._socket = 0, connect(until(lambda: self._page(port), "a page"), max_size=None)
            width, height = WINDOW
            self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            self.call("Page.navigate", url=url)
        except BaseException:
            self._end()
            raise

    @staticmethod
    def _page(port: str) -> str | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            return next((page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page"), None)

    def call(self, method: str, **parameters) -> dict:
        """A command of the protocol -> its result."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while (message := json.loads(self._socket.recv(timeout=DEADLINE_S))).get("id") != self._calls:
            pass
        assert "error" not in message, message
        return message["result"]

    def screenshot(self) -> np.ndarray:
        """The page, uint8 [H W 3]."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def close_notices(self) -> None:
        """Closes what lies over the scene, as the one about rendering in software."""
        close = "document.querySelectorAll('.mantine-Notification-closeButton').forEach(button => button.click())"
        self.call("Runtime.evaluate", expression=close)

    def drag(self, start: np.ndarray, end: np.ndarray) -> None:
        """Presses the left button at one place (x, y), moves to another, and lets go; a click when they are one place."""
        down = {"button": "left", "buttons": 1, "clickCount": 1}
        self._mouse("mouseMoved", start)
        self._mouse("mousePressed", start, **down)
        for share in np.linspace(0.25, 1.0, 4) if np.any(start != end) else ():
            self._mouse("mouseMoved", start + share * (end - start), **down)
        self._mouse("mouseReleased", end, button="left", buttons=0, clickCount=1)

    def _mouse(self, kind: str, place: np.ndarray, **more) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=float(place[0]), y=float(place[1]), **more)

    def close(self) -> None:
        self._socket.close()
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@pytest.fixture
def viewer(core, tmp_path):
    """A viewer of the core and of a camera, without a browser."""
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    from launch.view import viewer as module

    camera = look_at(np.float32([[3, -3, 2], [3, -3, 2]]), np.float32([[0, 0, 0.5], [0, 0, 0.5]]))
    rgb = np.full((2, 12, 16, 3), 200, np.uint8)
    source = ViewerInput("core", core, None, tmp_path / "x.json", "words", camera, np.arange(2) / 8, rgb, (12, 16))
    viewer = module.Viewer(source, "127.0.0.1", 0, tmp_path / "out.json", rows=96)
    yield viewer
    viewer.close()


@pytest.fixture
def browser(viewer, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    browser = Browser(viewer.url, tmp_path)
    yield browser
    browser.close()


def like(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Which pixels of the scene, left of the panel, have the hue of a colour, whatever the light."""
    part = picture[:, : WINDOW[0] - 400].astype(float)
    brightness = part.max(-1)
    share = part / np.maximum(brightness, 1.0)[..., None]
    return (np.abs(share - np.divide(colour, max(colour))).max(-1) < 0.3) & (brightness > 60)


def place(viewer, point: np.ndarray) -> np.ndarray:
    """Where the browser shows a point of the world, pixels (x, y)."""
    view = until(lambda: viewer.seen_by, "a browser is there").camera
    position, turn = np.float32(view.position), np.float32(view.wxyz)
    camera = Camera(position, turn, np.asarray(0.5 / np.tan(0.5 * view.fov), np.float32), np.zeros(2, np.float32))
    canvas, _ = project(camera, np.float32([point]), view.image_width / view.image_height)
    return np.asarray(canvas[0], np.float64) * view.image_height


def way_back(viewer, browser):
    """Once the screen stands still, a function that brings its camera back to where it is now: a drag that missed turns it.

    It returns when the screen shows it: what the server says of the camera is ahead of the browser, which also glides on.
    """

    def still():
        first = browser.screenshot()
        time.sleep(0.3)
        return (browser.screenshot() == first).all()

    until(still, "the screen stands still")
    home = like(browser.screenshot(), RED)
    camera = viewer.seen_by.camera
    position, middle = camera.position.copy(), camera.look_at.copy()

    def back():
        with viewer.seen_by.atomic():
            camera.position, camera.look_at = position, middle
        time.sleep(0.3)
        same = (like(browser.screenshot(), RED) == home).mean()
        return same > 0.998 and np.allclose(camera.position, position, atol=1e-3)

    return lambda: until(back, "the browser looks from where it did")


def test_the_panel_changes_plays_and_draws(viewer, core):
    from launch.view import snapshot as view_snapshot
    from launch.view import viewer as module

    until(lambda: viewer.picture is not None, "a snapshot")
    programs = view_snapshot._surface._cache_size()
    viewer.select(2)
    np.testing.assert_allclose([viewer.sliders["scale", i].value for i in range(3)], 0.4)
    viewer.sliders["scale", 0].value = 0.8
    viewer.scope.value, viewer.time.value = module.ONE_TICK, 0.11
    viewer.sliders["exponents", 1].value = 1.5
    assert viewer.now == 0.125
    after = viewer.core.waves
    np.testing.assert_allclose(after.scale[:, 2], [[0.8, 0.4, 0.4]] * 3, rtol=1e-6)
    np.testing.assert_allclose(after.exponents[:, 2], [[0.1, 0.1], [0.1, 1.5], [0.1, 0.1]], rtol=1e-6)
    others = [0, 1, 3]
    for name in ("scale", "exponents", "centre", "presence", "colour"):
        np.testing.assert_array_equal(getattr(after, name)[:, others], getattr(core, name)[:, others])
    before = viewer.picture
    viewer.view.value, viewer.channel.value = module.CLIP, "normal"
    until(lambda: viewer.picture is not before and len(np.unique(viewer.picture.reshape(-1, 3), axis=0)) > 50, "normals")
    viewer.play.value = True
    until(lambda: viewer.now not in (0.0, 0.125), "the time moves")
    viewer.play.value = False
    assert view_snapshot._surface._cache_size() == programs
    assert viewer.core.waves.centre.shape == core.centre.shape


def test_a_wave_is_clicked_dragged_and_saved_in_a_browser(viewer, browser, core, tmp_path):
    def drawn():
        return min(like(browser.screenshot(), colour).sum() for colour in (RED, BLUE)) > 150

    until(lambda: viewer.seen_by, "a browser connected")
    until(drawn, "the red ball and the blue box are on the screen")
    browser.close_notices()
    before = until(lambda: viewer.picture, "a snapshot") if viewer.picture is None else viewer.picture
    ball = np.float64(core.centre[0, 1])

    def clicked():
        browser.drag(place(viewer, ball), place(viewer, ball))
        return viewer.slot == 1

    until(clicked, "a click selected the ball")
    back = way_back(viewer, browser)
    height = like(browser.screenshot(), RED).nonzero()[0].mean()

    grips = itertools.cycle((0.75, 0.65, 0.85, 0.5))  # of the length of the arrow; where it is hidden, the next one

    def dragged():
        now = np.float64(viewer.core.at(0.0).centre[1])
        up = np.array([0.0, 0.0, viewer.reach])
        back()
        grip = next(grips)
        browser.drag(place(viewer, now + grip * up), place(viewer, now + (grip + 0.5) * up))
        return viewer.core.at(0.0).centre[1, 2] > ball[2] + 0.1

    until(dragged, "the arrow of the handle moved the ball up")
    moved = viewer.core.waves
    shift = moved.centre - core.centre
    assert (shift[:, 1, 2] > 0.1).all() and not shift[:, [0, 2, 3]].any()
    until(lambda: np.abs(np.int64(viewer.picture) - before).max() > 60, "the snapshot shows it")
    until(lambda: like(browser.screenshot(), RED).nonzero()[0].mean() < height - 3, "the screen shows it")
    viewer.look_through(None, viewer.seen_by)
    until(lambda: np.allclose(viewer.seen_by.camera.position, [3, -3, 2], atol=1e-3), "the browser looks through the camera")
    viewer.save()
    again, _ = core_json.load(tmp_path / "out.json")
    np.testing.assert_array_equal(again.centre, viewer.core.waves.centre)


def test_a_wave_is_turned_in_a_browser_and_drawn_turned(viewer, browser, core):
    until(lambda: viewer.seen_by, "a browser connected")
    until(lambda: like(browser.screenshot(), BLUE).sum() > 150, "the blue box is on the screen")
    browser.close_notices()
    viewer.select(2)
    back = way_back(viewer, browser)
    before = until(lambda: viewer.picture, "a snapshot") if viewer.picture is None else viewer.picture
    box = np.float64(core.centre[0, 2])
    grips = itertools.cycle((0.65, 0.6, 0.7))  # of the length of the arrows; the arcs stand between them

    def turn():
        back()
        radius, angles = next(grips) * viewer.reach, np.deg2rad([45.0, 80.0])
        ends = (place(viewer, box + radius * np.array([np.cos(angle), np.sin(angle), 0.0])) for angle in angles)
        browser.drag(*ends)
        deadline = time.monotonic() + 3.0  # what was turned is on its way: once is enough
        while not (turned := abs(viewer.core.at(0.0).rotation[2, 3]) > 0.1) and time.monotonic() < deadline:
            time.sleep(0.05)
        return turned

    until(turn, "the arc of the handle turned the box about its own z")
    last, since = None, time.monotonic()  # the way of the mouse comes in pieces: the last one counts
    while time.monotonic() - since < 2.0:
        now = viewer.core.at(0.0).rotation[2, 3]
        last, since = (last, since) if now == last else (now, time.monotonic())
        time.sleep(0.05)
    after = viewer.core.waves
    w, x, y, z = np.moveaxis(after.rotation[:, 2], -1, 0)
    np.testing.assert_allclose(np.hypot(w, z), 1.0, atol=1e-4)
    np.testing.assert_allclose([x, y], 0.0, atol=1e-3)
    turned = 2 * np.arctan2(z * np.sign(w), np.abs(w))
    assert ((turned > 0.4) & (turned < 0.9)).all(), "by about what the mouse went, its way"
    np.testing.assert_allclose(after.centre[:, 2], core.centre[:, 2], atol=1e-6)
    np.testing.assert_array_equal(after.rotation[:, [0, 1, 3]], core.rotation[:, [0, 1, 3]])
    until(lambda: np.abs(np.int64(viewer.picture) - before).max() > 60, "the snapshot shows it")


@pytest.mark.parametrize("rows", [8, 96, 100, 192, 500])
def test_every_initial_height_can_be_chosen(rows):
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    from launch.view.viewer import _slider_range

    low, high, step = _slider_range(rows)
    assert low <= rows <= high and (rows - low) % step == 0
