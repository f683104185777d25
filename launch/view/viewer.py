"""The viewer of a core: a scene in the browser, a timeline, a panel with snapshots, and handles on its waves."""

import contextlib
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import viser

from launch.view.scene import CameraNodes, WaveNodes, extent, fov, rgb
from launch.view.snapshot import CHANNELS, Snapshots
from launch.view.source import Source
from wsm_jax.core.edit.session import EditedCore
from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import SEMANTIC_CLASSES, TICK_HZ, Camera, look_at
from wsm_jax.snapshot.camera import DEFAULT_FOV

NONE, HERE, CLIP = "none", "this view", "camera of the clip"
EVERYWHERE, ONE_TICK = "all ticks", "this tick"
ROWS, PANEL_ROWS = (96, 384, 96), 192
"""Least, most and step of the height of a snapshot, pixels; the height at the start."""

_ASPECT = 4 / 3  # of snapshots from the browser's view: one shape, so one program, for windows of all shapes
_STEPS = 8  # of the timeline between two ticks
_BEAT = 1 / 20  # s between two pictures of a core that is played
_SKY = (48, 54, 66), (112, 118, 130)  # bytes, at the top and at the bottom of the browser


class Viewer:
    """A core in browsers at `url`, until `close`. What is changed there stands in `core`; Save writes it to `out`.

    Callbacks come from many threads: whatever reads or changes the core holds `_lock`. One thread draws the snapshots, always
    the latest state; so dragging does not wait for pictures. Raises ValueError for a core that cannot be edited.
    """

    def __init__(self, source: Source, host: str, port: int, out: Path):
        self.core = EditedCore(source.waves, source.time, source.name)
        self.picture: np.ndarray | None = None
        """The last snapshot that was drawn, uint8 [H W 3]."""
        self._source, self._out = source, out
        self._lock, self._wake, self._closed = threading.RLock(), threading.Event(), threading.Event()
        self._filling = False  # while sliders are set to what a wave is, they change nothing
        self.seen_by: viser.ClientHandle | None = None
        """The browser whose view the snapshot shows: the one that moved last."""
        self._snapshots = Snapshots(self.core.count)
        with contextlib.redirect_stdout(io.StringIO()):  # its own lines about itself
            self._server = viser.ViserServer(host, port, verbose=False)
        self.url = f"http://{host}:{self._server.get_port()}"
        self._build_scene()
        self._build_panel()
        self._refresh()
        self._thread = threading.Thread(target=self._draw, name="snapshots", daemon=True)
        self._thread.start()
        self._server.on_client_connect(self._connected)

    def wait(self) -> None:
        """Until the viewer is closed."""
        self._closed.wait()

    def close(self) -> None:
        """Ends the server and the drawing."""
        self._closed.set()
        self._wake.set()
        self._thread.join()
        self._server.stop()

    # --- scene -----------------------------------------------------------------------------------------------------------

    def _build_scene(self) -> None:
        server, first = self._server, self.core.at(self.core.span[0])
        middle, radius = extent(first)
        server.gui.configure_theme(control_width="large", dark_mode=True, show_logo=False, show_share_button=False)
        server.gui.main_panel.dock_right()
        server.scene.set_up_direction("+z")
        server.scene.configure_environment_map("studio", environment_intensity=0.1)
        server.scene.set_background_image(np.linspace(_SKY[0], _SKY[1], 64)[:, None].astype(np.uint8), format="png")
        away = self._away(middle)
        self._start = look_at(middle + 3.2 * radius * away, middle)
        server.initial_camera.fov, server.initial_camera.look_at = DEFAULT_FOV, middle
        server.initial_camera.position = middle + 3.2 * radius * away
        if not np.any(np.asarray(first.semantic) == SEMANTIC_CLASSES.index("floor")):
            server.scene.add_grid("/grid", infinite_grid=True, cell_color=(90, 90, 96), section_color=(120, 120, 126))
        self._nodes = WaveNodes(server, self.core.count, lambda slot: self.select(slot))
        self._handle = server.scene.add_transform_controls("/handle", depth_test=False, visible=False)
        self._handle.on_update(self._dragged)
        self._radius = radius
        self._cameras = None
        if (camera := self._source.camera) is not None:
            height, width = self._source.size or (1, 1)
            self._cameras = CameraNodes(server, camera, self._source.rgb, width / height, 0.15 * radius, self.look_through)

    def _away(self, middle: np.ndarray) -> np.ndarray:
        """Unit vector from the middle of the scene to where a browser starts: from the front, or beside the clip's camera."""
        front = np.array([-0.3, -0.95])
        if self._source.camera is not None:
            beside = np.asarray(self._source.camera.position, np.float64)[0, :2] - middle[:2]
            turn = np.array([[0.82, -0.57], [0.57, 0.82]])
            front = turn @ beside / max(float(np.linalg.norm(beside)), 1e-6)
        away = np.array([*front, 0.5])
        return away / np.linalg.norm(away)

    def _connected(self, client: viser.ClientHandle) -> None:
        self.seen_by = client

        @client.camera.on_update
        def _(_: viser.CameraHandle) -> None:
            self.seen_by = client
            if self.view.value == HERE:
                self._wake.set()

        self._wake.set()

    def look_through(self, frame: int | None, client: viser.ClientHandle) -> None:
        """Puts a browser's camera where a camera of the clip is, and the timeline to its frame."""
        assert self._source.camera is not None and self._source.frame_time is not None
        if frame is not None and self.core.ticks > 1:
            self.time.value = float(np.clip(self._source.frame_time[frame], *self.core.span))
        camera = self._source.camera[self._frame() if frame is None else frame]
        self.frusta.value = False
        with client.atomic():
            client.camera.position, client.camera.wxyz = np.asarray(camera.position), np.asarray(camera.rotation)
            client.camera.fov = fov(camera)

    # --- panel -----------------------------------------------------------------------------------------------------------

    def _build_panel(self) -> None:
        gui = self._server.gui
        gui.add_markdown(f"**{self._source.name}**" + (f"  \n{self._source.caption}" if self._source.caption else ""))
        if self.core.ticks > 1:
            first, last = self.core.span
            self.time = gui.add_slider("time, s", first, last, 1 / (TICK_HZ * _STEPS), first)
            self.time.on_update(lambda _: self._refresh())
            self.play = gui.add_checkbox("play", False)
            self.play.on_update(lambda _: self._wake.set())
        with gui.add_folder("Snapshot"):
            self.view = gui.add_dropdown("from", (HERE, CLIP) if self._cameras else (HERE,))
            self.channel = gui.add_dropdown("channel", CHANNELS)
            self.rows = gui.add_slider("height, px", ROWS[0], ROWS[1], ROWS[2], PANEL_ROWS)
            for control in (self.view, self.channel, self.rows):
                control.on_update(lambda _: self._wake.set())
            blank = np.full((PANEL_ROWS, round(PANEL_ROWS * _ASPECT), 3), 40, np.uint8)
            self._image = gui.add_image(blank, format="jpeg", jpeg_quality=90)
            if (cameras := self._cameras) is not None:
                self.frusta = gui.add_checkbox("show cameras", True)
                self.frusta.on_update(lambda _: setattr(cameras, "visible", self.frusta.value))
                gui.add_button("Look through the camera of the clip").on_click(
                    lambda event: self.look_through(None, event.client) if event.client else None
                )
        with gui.add_folder("Wave"):
            self._build_sliders(gui)
        gui.add_button("Save", hint=str(self._out)).on_click(lambda event: self.save(event.client))

    def _build_sliders(self, gui: viser.GuiApi) -> None:
        names = [f"{slot}: {SEMANTIC_CLASSES[int(label)]}" for slot, label in enumerate(self._semantics())]
        self.wave = gui.add_dropdown("wave", (NONE, *names))
        self.wave.on_update(lambda _: self._selected())
        self.scope = gui.add_dropdown("changes", (EVERYWHERE, ONE_TICK), visible=self.core.ticks > 1)
        low, high = EXPONENT_RANGE
        most = round(3.0 * self._radius, 2)
        self.sliders: dict[tuple[str, int], Any] = {
            **{("scale", i): gui.add_slider(f"semi-axis {'xyz'[i]}, m", 1e-3, most, 1e-3, 1e-3) for i in range(3)},
            **{("exponents", i): gui.add_slider(f"exponent e{i + 1}", low, high, 0.01, 1.0) for i in range(2)},
            ("presence", 0): gui.add_slider("presence", 0.0, 1.0, 0.01, 1.0),
        }
        for (field, i), slider in self.sliders.items():
            slider.on_update(self._slid(field, i))
        self.colour = gui.add_rgb("colour", (128, 128, 128))
        self.colour.on_update(lambda _: self._change({"colour": np.asarray(self.colour.value) / 255.0}))

    def _semantics(self) -> np.ndarray:
        """The class of every slot: that of the tick at which it is most present."""
        waves = self.core.waves
        presence, semantic = (np.asarray(x).reshape(-1, self.core.count) for x in (waves.presence, waves.semantic))
        return semantic[presence.argmax(0), np.arange(self.core.count)]

    def _slid(self, field: str, i: int) -> Callable[[Any], None]:
        def update(_: Any) -> None:
            with self._lock:
                if self.slot is not None:
                    value = np.array(getattr(self.core.at(self.now), field)[self.slot], np.float64)
                    value[... if value.ndim == 0 else i] = self.sliders[field, i].value
                    self._change({field: value})

        return update

    # --- state -----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Time shown, s."""
        return self.time.value if self.core.ticks > 1 else self.core.span[0]

    @property
    def reach(self) -> float:
        """Length of the arrows of the handle, m."""
        return self._handle.scale

    @property
    def slot(self) -> int | None:
        """The selected wave."""
        return None if self.wave.value == NONE else int(self.wave.value.partition(":")[0])

    def select(self, slot: int | None) -> None:
        """Selects a wave: it gets the handle, the sliders show what it is."""
        self.wave.value = NONE if slot is None else self.wave.options[slot + 1]

    def _selected(self) -> None:
        with self._lock:
            slot = self.slot
            self._handle.visible = slot is not None
            if slot is not None:
                longest = float(np.max(self.core.at(self.now).scale[slot]))
                self._handle.scale = 2.0 * float(np.clip(longest, 0.2 * self._radius, self._radius))
            self._refresh()

    def _refresh(self, fill: bool = True) -> None:
        """Shows the core as it is now: meshes, handle, sliders, camera and snapshot."""
        with self._lock:
            waves = self.core.at(self.now)
            self._nodes.show(waves)
            if self._cameras:
                self._cameras.show(self._frame())
            slot = self.slot
            if slot is not None and fill:
                self._filling = True
                try:
                    for (field, i), slider in self.sliders.items():
                        value = float(np.ravel(getattr(waves, field)[slot])[i])
                        slider.max = max(slider.max, 2.0 * value) if field == "scale" else slider.max
                        slider.value = round(value, 3)
                    self.colour.value = rgb(np.asarray(waves.colour[slot]))
                finally:
                    self._filling = False
                self._handle.position = np.asarray(waves.centre[slot])
                self._handle.wxyz = np.asarray(waves.rotation[slot])
        self._wake.set()

    def _frame(self) -> int:
        """The frame of the clip nearest to the time shown."""
        assert self._source.frame_time is not None
        return int(np.argmin(np.abs(self._source.frame_time - self.now)))

    def _dragged(self, _: viser.TransformControlsEvent) -> None:
        with self._lock:
            self._change({"centre": self._handle.position.copy(), "rotation": self._handle.wxyz.copy()})

    def _change(self, values: dict[str, np.ndarray]) -> None:
        """Gives fields of the selected wave new values, at all ticks or at the nearest one, to which the timeline goes."""
        with self._lock:
            slot = self.slot
            if self._filling or slot is None:
                return
            tick = None
            if self.core.ticks > 1 and self.scope.value == ONE_TICK:
                tick = self.core.nearest(self.now)
            changed = [self.core.change(slot, field, value, self.now, tick) for field, value in values.items()]
            if tick is not None and not np.isclose(self.now, self.core.time[tick]):
                self.time.value = float(self.core.time[tick])
            elif any(changed):
                # the sliders and the handle are where the user put them
                self._refresh(fill=False)

    def save(self, client: viser.ClientHandle | None = None) -> None:
        """Writes the core to its file, and says so to whoever asked."""
        title, text, colour = "Saved", str(self._out), "green"
        try:
            with self._lock:
                self.core.save(self._out)
        except (OSError, ValueError) as error:
            title, text, colour = "Not saved", f"{self._out}: {error}", "red"
        print(f"{title.lower()}: {text}", flush=True)
        if client is not None:
            client.add_notification(title, text, color=colour, auto_close_seconds=6.0)

    # --- snapshots -------------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        """Draws the latest state whenever something woke it, and moves the time while the core is played."""
        begun: tuple[float, float] | None = None  # wall clock and time of the core when playing began
        while not self._closed.is_set():
            playing = self.core.ticks > 1 and self.play.value
            self._wake.wait(_BEAT if playing else None)
            if not playing:
                begun = None
            elif begun is None:
                begun = time.monotonic(), self.now
            else:
                first, last = self.core.span
                reached = begun[1] - first + time.monotonic() - begun[0]
                self.time.value = first + reached % (last - first)
            self._wake.clear()  # what comes from here on is drawn the next time
            if not self._closed.is_set():
                self._snapshot()

    def _snapshot(self) -> None:
        camera, later, dt, aspect = self._camera_shown()
        with self._lock:
            waves = self.core.at(self.now)
        rows = int(self.rows.value)
        columns = max(8, round(rows * aspect))
        picture = self._snapshots.picture(self.channel.value, waves, camera, rows, columns, later, dt)
        self._image.image = self.picture = picture

    def _camera_shown(self) -> tuple[Camera, Camera | None, float, float]:
        """The camera of the snapshot, the next one of the clip and how much later it is (s), and width over height."""
        if self.view.value == CLIP:
            assert self._source.camera is not None and self._source.frame_time is not None
            times, frame = self._source.frame_time, self._frame()
            after = min(frame + 1, len(times) - 1)
            height, width = self._source.size or (3, 4)
            dt = float(times[after] - times[frame])
            return self._source.camera[frame], self._source.camera[after], dt or 1e-2, width / height
        client = self.seen_by
        if client is None:
            return self._start, None, 1e-2, _ASPECT
        view = client.camera
        focal = np.full((), 0.5 / np.tan(0.5 * view.fov), np.float32)
        position, turn = (np.asarray(x, np.float32) for x in (view.position, view.wxyz))
        return Camera(position, turn, focal, np.zeros(2, np.float32)), None, 1e-2, _ASPECT
