"""Camera paths of clips: still, arc, dolly, or a path that leaves and returns to the same pose."""

import dataclasses

import numpy as np

from wsm_jax.snapshot import Camera, look_at
from wsm_jax.typing import Float

CAMERA_KINDS = ("still", "orbit", "dolly", "pan_return", "orbit_return")
"""The last two turn away by more than 40 degrees and end exactly at their first pose."""


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """A camera path as a function of time; angles in radians, lengths in m.

    With u = time / duration, the path is followed by s(u): u itself for "orbit" and "dolly", sin^2(pi u) for the returns,
    0 for "still". The camera stands at azimuth + s * sweep (around the target, not for the pan) and at distance + s * advance,
    `height` above the floor, and looks at the target; a pan turns the view about the vertical by s * sweep instead.
    """

    kind: str
    azimuth: float
    distance: float
    height: float
    target: tuple[float, float, float]
    sweep: float
    advance: float

    def cameras(self, time: Float[np.ndarray, " T"], duration: float) -> Camera:
        """The cameras [T] at `time` (s); `duration` (s, positive) ends the path; later times are allowed."""
        u = np.asarray(time, np.float64) / duration
        if self.kind == "still":
            s = np.zeros_like(u)
        elif self.kind in ("orbit", "dolly"):
            s = u
        else:
            # at u = 1 this is 1e-32, which vanishes beside the start in float64: the return is exact
            s = np.sin(np.pi * u) ** 2
        turn = s * self.sweep
        pan = self.kind == "pan_return"
        azimuth = self.azimuth + (0.0 if pan else 1.0) * turn
        distance = self.distance + s * self.advance
        target = np.broadcast_to(np.asarray(self.target), (len(u), 3))
        away = np.stack([np.cos(azimuth) * distance, np.sin(azimuth) * distance, np.zeros_like(u)], -1)
        position = target * np.array([1, 1, 0]) + away + np.array([0, 0, self.height])
        if pan:
            view = target - position
            cos, sin = np.cos(turn), np.sin(turn)
            x, y, z = view.T
            target = position + np.stack([cos * x - sin * y, sin * x + cos * y, z], -1)
        return look_at(position, target)


def draw_camera(rng: np.random.Generator, kinds: tuple[str, ...] = CAMERA_KINDS) -> CameraPath:
    """A random path of one of `kinds` (equally likely). Raises ValueError for a kind that does not exist."""
    unknown = sorted(set(kinds) - set(CAMERA_KINDS))
    if unknown or not kinds:
        raise ValueError(f"camera kinds {unknown or kinds}: unknown or none; choose among {', '.join(CAMERA_KINDS)}")
    kind = kinds[rng.integers(len(kinds))]
    side = rng.choice([-1.0, 1.0])
    sweep = {"still": 0.0, "orbit": rng.uniform(10, 40), "dolly": 0.0}.get(kind, rng.uniform(48, 75))
    distance = rng.uniform(4.5, 5.5)
    # never nearer than 4.1 m, so that the arena stays in view
    advance = rng.uniform(4.1, 6.0) - distance if kind == "dolly" else 0.0
    return CameraPath(
        kind=kind,
        azimuth=float(np.deg2rad(-90.0 + rng.uniform(-15, 15))),
        distance=float(distance),
        height=float(rng.uniform(1.6, 2.6)),
        target=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.1, 0.1)), float(rng.uniform(0.3, 0.4))),
        sweep=float(side * np.deg2rad(sweep)),
        advance=float(advance),
    )
