"""Waves and cameras of the viewer as nodes of a viser scene; only changes are sent to the browser."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import viser

from wsm_jax.core.exchange.tessellation import cube, unit_surface
from wsm_jax.snapshot import SEMANTIC_CLASSES, Camera, Waves
from wsm_jax.typing import NpOrJax

HIDDEN = 0.02
"""Presence below which a wave is not drawn; above it, the opacity is the presence."""

_DETAILS = ((64, 16), (512, 8))  # (maximum number of waves, cells along an edge of the cube mapped onto a wave); else 4 cells
_OPAQUE = 0.995
_DRAWN = ("presence", "centre", "rotation", "scale", "exponents", "colour")
_ORANGE, _GREY = (240, 130, 30), (130, 130, 140)


class WaveNodes:
    """One mesh per wave: the surface with unit semi-axes, which the browser scales, rotates and moves.

    A pose or a size is a few numbers to send; vertices are sent again only for new exponents. `clicked` is called with the
    slot of a clicked wave.
    """

    def __init__(self, server: viser.ViserServer, count: int, clicked: Callable[[int], None]):
        self._server, self._clicked = server, clicked
        self._detail = next((detail for most, detail in _DETAILS if count <= most), 4)
        self._nodes: dict[int, viser.MeshHandle] = {}
        self._exponents: dict[int, tuple[float, float]] = {}
        self._shown: np.ndarray | None = None  # state in the browser, [N fields]

    def show(self, waves: Waves) -> None:
        """Draw the waves [N ...] of an instant."""
        now = np.concatenate([np.asarray(getattr(waves, name)).reshape(waves.count, -1) for name in _DRAWN], -1)
        changed = np.ones(waves.count, bool) if self._shown is None else (now != self._shown).any(-1)
        self._shown = now
        with self._server.atomic():
            for slot in np.flatnonzero(changed).tolist():
                presence = float(waves.presence[slot])
                if slot not in self._nodes and presence < HIDDEN:
                    continue
                if slot not in self._nodes:
                    self._nodes[slot] = self._add(slot, waves)
                self._update(self._nodes[slot], slot, waves, presence)

    def _add(self, slot: int, waves: Waves) -> viser.MeshHandle:
        node = self._server.scene.add_mesh_simple(
            f"/waves/{slot}",
            self._vertices(slot, waves),
            cube(self._detail)[1],
            material="standard",
            cast_shadow=SEMANTIC_CLASSES[int(waves.semantic[slot])] != "floor",
        )
        node.on_click(lambda _: self._clicked(slot))
        return node

    def _update(self, node: viser.MeshHandle, slot: int, waves: Waves, presence: float) -> None:
        if self._exponents[slot] != _pair(waves, slot):
            node.vertices = self._vertices(slot, waves)
        node.position, node.wxyz = np.asarray(waves.centre[slot]), np.asarray(waves.rotation[slot])
        node.scale = _three(waves.scale[slot])
        node.color = rgb(np.asarray(waves.colour[slot]))
        node.opacity = None if presence >= _OPAQUE else round(presence, 3)
        node.visible = presence >= HIDDEN

    def _vertices(self, slot: int, waves: Waves) -> np.ndarray:
        self._exponents[slot] = _pair(waves, slot)
        return unit_surface(np.asarray(waves.exponents[slot : slot + 1]), self._detail)[0][0].astype(np.float32)


def _pair(waves: Waves, slot: int) -> tuple[float, float]:
    e1, e2 = waves.exponents[slot]
    return float(e1), float(e2)


def _three(values: NpOrJax) -> tuple[float, float, float]:
    x, y, z = values
    return float(x), float(y), float(z)


def rgb(colour: Sequence[float] | np.ndarray) -> tuple[int, int, int]:
    """Convert sRGB in 0..1 to bytes."""
    red, green, blue = np.rint(255.0 * np.clip(np.asarray(colour), 0.0, 1.0)).astype(int).tolist()
    return red, green, blue


class CameraNodes:
    """Cameras [T] of a clip: grey frusta at some frames, an orange one with its image at the current frame.

    `clicked` is called with the frame (None: the current one) and the browser of the user.
    """

    SPREAD = 9
    """Maximum number of grey frusta."""

    def __init__(
        self,
        server: viser.ViserServer,
        camera: Camera,
        rgb: np.ndarray | None,
        aspect: float,
        size: float,
        clicked: Callable[[int | None, viser.ClientHandle], None],
    ):
        self._camera, self._rgb, self._frame = camera, rgb, -1
        position = np.asarray(camera.position)
        moves = np.linalg.norm(position - position[0], axis=-1).max() > 0.1 * size
        look: dict[str, Any] = {"cast_shadow": False, "receive_shadow": False, "thickness": 0.02 * size, "aspect": aspect}
        self._nodes: list[viser.CameraFrustumHandle] = []
        for frame in np.unique(np.linspace(0, len(position) - 1, self.SPREAD).round().astype(int)).tolist() if moves else ():
            one = camera[frame]
            node = server.scene.add_camera_frustum(
                f"/cameras/{frame}", fov(one), scale=0.5 * size, color=_GREY, **look, **_pose(one)
            )
            node.on_click(lambda event, frame=frame: clicked(frame, event.client))
            self._nodes.append(node)
        # png, because small frames are enlarged and would show the blocks of a jpeg
        self._present = server.scene.add_camera_frustum(
            "/cameras/present", fov(camera[0]), scale=size, color=_ORANGE, format="png", **look
        )
        self._present.on_click(lambda event: clicked(None, event.client))
        self._nodes.append(self._present)

    @property
    def visible(self) -> bool:
        """True if the frusta are drawn; a camera inside one would not see the scene."""
        return self._present.visible

    @visible.setter
    def visible(self, visible: bool) -> None:
        for node in self._nodes:
            node.visible = visible

    def show(self, frame: int) -> None:
        """Move the orange frustum to a frame."""
        if frame == self._frame:
            return
        self._frame = frame
        pose = _pose(self._camera[frame])
        self._present.position, self._present.wxyz = pose["position"], pose["wxyz"]
        self._present.fov = fov(self._camera[frame])
        if self._rgb is not None:
            self._present.image = self._rgb[frame]


def fov(camera: Camera) -> float:
    """Vertical field of view of one camera, radians."""
    return float(2.0 * np.arctan(0.5 / np.asarray(camera.focal)))


def _pose(camera: Camera) -> dict[str, Any]:
    return {"position": np.asarray(camera.position), "wxyz": np.asarray(camera.rotation)}


def extent(waves: Waves) -> tuple[np.ndarray, float]:
    """Centre (m) and radius (m) of the present waves of an instant, without the floor unless it is the only one."""
    floor = SEMANTIC_CLASSES.index("floor")
    present = np.asarray(waves.presence) >= HIDDEN
    objects = present & (np.asarray(waves.semantic) != floor)
    chosen = objects if objects.any() else present if present.any() else np.ones_like(present)
    centre, reach = np.asarray(waves.centre)[chosen], np.linalg.norm(np.asarray(waves.scale)[chosen], axis=-1, keepdims=True)
    low, high = (centre - reach).min(0), (centre + reach).max(0)
    return 0.5 * (low + high), max(0.5 * float(np.linalg.norm(high - low)), 1e-2)
