"""Waves from perceived surface channels: pixels vote for the centres of waves, votes are tracked, tracks become waves.

The votes are metric: a pixel at depth z on the ray d with perceived vector c to the centre of its wave says that a wave lies at

    x = o + R (z d + c)          (o, R: camera)

Votes that agree are one detection; detections are joined over time by the Hungarian method (Kuhn 1955); what is constant for
a rigid object (shape, size, colour) is the weighted median over all its pixels and frames.
"""

import dataclasses

import jax
import numpy as np
from scipy.ndimage import median_filter
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

from wsm_jax.core.project import canonical, motion_from_poses, project
from wsm_jax.models.wave_bridge.style import Style
from wsm_jax.snapshot import SEMANTIC_CLASSES, TICK_HZ, Camera, Waves, rays
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.snapshot.shapes import EXPONENTS, FLOOR_HALF_M
from wsm_jax.snapshot.waves import COLOURS, empty
from wsm_jax.typing import Float, Int

FLOOR, SCREEN, BALL = (SEMANTIC_CLASSES.index(name) for name in ("floor", "screen", "ball"))
VOTE_RADIUS = 0.5
VOTE_SPACE, VOTE_COLOUR, VOTE_CANVAS = 0.25, 1.0, 1.5
"""Weights in the distance of two votes: of metres between centres, of colour, and of image heights between pixels."""
GATE_M, GATE_COLOUR = 1.3, 0.5
"""A detection further than this from where a track is expected (m), or in colour (sRGB), starts another track."""
LEAST_SHARE = 0.004
"""Least share of the picture that a detection covers."""


_rays = jax.jit(rays, static_argnums=(1, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class Detection:
    """One wave as seen in one frame."""

    centre: Float[np.ndarray, "3"]
    rotation: Float[np.ndarray, "3 3"]
    scale: Float[np.ndarray, "3"]
    colour: Float[np.ndarray, "3"]
    votes: Float[np.ndarray, " classes"]
    style: Float[np.ndarray, " c"]
    weight: float
    """Share of the picture."""

    @property
    def kind(self) -> int:
        """Semantic class with most votes, the screen or one of the objects."""
        return kind_of(self.votes)


def kind_of(votes: Float[np.ndarray, " classes"]) -> int:
    """The screen or object class with most votes."""
    return int(np.argmax(np.where(np.arange(len(votes)) >= SCREEN, votes, -np.inf)))


def detect(seen: dict[str, np.ndarray], camera: Camera, style_width: int) -> list[Detection]:
    """Detections in one frame: `seen` holds physical channels [H W C], "semantic_code" and "style" as encoded."""
    height, width = seen["depth"].shape[:2]
    origin, direction = (np.asarray(x) for x in _rays(camera, height, width))
    turn = Rotation.from_quat(np.asarray(camera.rotation), scalar_first=True).as_matrix()
    labels = seen["semantic"][..., 0]
    found = []
    for group in (labels == SCREEN, labels >= BALL):
        pixels = np.flatnonzero(group)
        depth = seen["depth"].reshape(-1, 1)[pixels]
        pixels = pixels[depth[:, 0] > 0]
        flat = {name: x.reshape(-1, x.shape[-1])[pixels] for name, x in seen.items()}
        offset = flat["centre"] @ turn.T
        point = origin + flat["depth"] * direction.reshape(-1, 3)[pixels]
        place = np.stack(np.unravel_index(pixels, (height, width)), -1) / height
        votes = np.concatenate([VOTE_SPACE * (point + offset), VOTE_COLOUR * flat["base_colour"], VOTE_CANVAS * place], -1)
        for members in _agreeing(votes, LEAST_SHARE * height * width):
            part = {name: x[members] for name, x in flat.items()}
            found.append(
                _detection(part, -offset[members], (point + offset)[members], len(members) / (height * width), style_width)
            )
    return found


def _agreeing(votes: Float[np.ndarray, "n d"], least: float) -> list[Int[np.ndarray, " m"]]:
    """Greedy mode finding: the vote with most neighbours forms a group with them, until no group has `least` votes."""
    square = np.sum(votes**2, -1)
    near = square[:, None] + square[None] - 2.0 * votes @ votes.T < VOTE_RADIUS**2
    left = np.ones(len(votes), bool)
    groups = []
    while left.any():
        support = near[:, left].sum(1) * left
        best = int(np.argmax(support))
        if support[best] < max(least, 3):
            break
        mode = np.median(votes[near[best] & left], axis=0)
        taken = left & (near[best] | (np.linalg.norm(votes - mode, axis=-1) < 1.3 * VOTE_RADIUS))
        groups.append(np.flatnonzero(taken))
        left &= ~taken
    return groups


def _detection(part: dict[str, np.ndarray], arm: np.ndarray, votes: np.ndarray, weight: float, style_width: int) -> Detection:
    """Robust averages over the pixels of one wave; `arm` is the vector from its centre to each point, world frame."""
    scale = np.clip(np.median(part["extent"], axis=0), 0.04, 3.0)
    reach = part["local"] * scale
    # the rotation that takes wave-local points to world arms (Kabsch 1976), held to upright where the view leaves it open
    u, _, vt = np.linalg.svd(arm.T @ reach / len(arm) + 0.02 * float(np.mean(scale)) ** 2 * np.eye(3))
    rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return Detection(
        centre=np.median(votes, axis=0),
        rotation=rotation,
        scale=scale,
        colour=np.clip(np.median(part["base_colour"], axis=0), 0.0, 1.0),
        votes=part["semantic_code"].sum(0),
        style=part["style"][:, :style_width].mean(0),
        weight=weight,
    )


@dataclasses.dataclass(eq=False)
class Track:
    """Detections of one wave over time: (frame index, detection)."""

    seen: list[tuple[int, Detection]]

    def expected(self, frame: int) -> np.ndarray:
        """Predicted centre: the last centre plus the last displacement, over at most two frames."""
        last_frame, last = self.seen[-1]
        if len(self.seen) < 2:
            return last.centre
        before_frame, before = self.seen[-2]
        speed = (last.centre - before.centre) / (last_frame - before_frame)
        return last.centre + speed * min(frame - last_frame, 2)

    @property
    def weight(self) -> float:
        """Sum of the shares of its detections."""
        return sum(d.weight for _, d in self.seen)

    @property
    def kind(self) -> int:
        """Semantic class with most votes, the screen or one of the objects."""
        return kind_of(np.sum([d.votes for _, d in self.seen], axis=0))

    def median(self, name: str) -> np.ndarray:
        """Weighted median over the detections, component by component."""
        values = np.stack([getattr(d, name) for _, d in self.seen])
        weights = np.asarray([d.weight for _, d in self.seen])
        order = np.argsort(values, axis=0)
        mass = np.cumsum(weights[order], axis=0)
        index = (mass < 0.5 * weights.sum()).sum(0)
        return np.take_along_axis(np.take_along_axis(values, order, 0), index[None], 0)[0]


def follow(detections: list[list[Detection]], least: float = 0.15) -> list[Track]:
    """Joins detections over frames; a track must be seen in the share `least` of the frames to count.

    A detection and a track fit when they are near in space, in units of GATE_M, and alike in colour, in units of GATE_COLOUR:
    an object that left the view is known again by its colour. Of two tracks that never stand beside each other and fit,
    one is made.
    """
    tracks: list[Track] = []
    for frame, found in enumerate(detections):
        cost = np.full((len(tracks), len(found)), np.inf)
        for i, track in enumerate(tracks):
            for j, one in enumerate(found):
                away = min(np.linalg.norm(p - one.centre) for p in (track.expected(frame), track.seen[-1][1].centre))
                cost[i, j] = _misfit(track, one.kind, one.colour, float(away), frame - track.seen[-1][0])
        pairs = linear_sum_assignment(np.minimum(cost, 1e3)) if cost.size else ((), ())
        joined = {j: i for i, j in zip(*pairs, strict=True) if np.isfinite(cost[i, j])}
        for j, one in enumerate(found):
            if j in joined:
                tracks[joined[j]].seen.append((frame, one))
            else:
                tracks.append(Track([(frame, one)]))
    needed = max(1, min(3, len(detections)), int(np.ceil(least * len(detections))))
    return [track for track in _merged(tracks) if len(track.seen) >= needed]


def _misfit(track: Track, kind: int, colour: np.ndarray, away_m: float, gap: int) -> float:
    """Distance in units of what is tolerated, infinite beyond; `gap` frames without a sight tolerate more."""
    if (track.kind == SCREEN) != (kind == SCREEN):
        return np.inf
    space = away_m / (GATE_M * min(1.0 + 0.25 * (gap - 1), 2.5))
    tone = float(np.linalg.norm(track.median("colour") - colour)) / GATE_COLOUR
    return space + tone if space < 1.0 and tone < 1.0 else np.inf


def _merged(tracks: list[Track]) -> list[Track]:
    """Joins tracks that share no frame and fit each other, the heaviest first."""
    out: list[Track] = []
    for track in sorted(tracks, key=lambda t: -t.weight):
        frames = {frame for frame, _ in track.seen}
        for other in out:
            away = float(np.linalg.norm(other.median("centre") - track.median("centre")))
            apart = not frames & {frame for frame, _ in other.seen}
            if apart and np.isfinite(_misfit(other, track.kind, track.median("colour"), away, gap=5)):
                other.seen = sorted(other.seen + track.seen, key=lambda pair: pair[0])
                break
        else:
            out.append(track)
    return out


def to_core(
    tracks: list[Track], times: np.ndarray, floor_colour: np.ndarray, floor_style: np.ndarray, scene: np.ndarray, slots: int
) -> tuple[Waves, np.ndarray, Style]:
    """Core [K N] at the 8 Hz ticks within `times`, its tick times (s), and the style; slot 0 is the floor,
    slot 1 a screen; the heaviest tracks get the others."""
    ticks = np.arange(np.floor((times[-1] - times[0]) * TICK_HZ + 1e-6) + 1) / TICK_HZ + times[0]
    core = empty(slots, (len(ticks),))
    fields = {name: np.array(x) for name, x in vars(core).items()}
    codes = np.zeros((slots, len(floor_style)), np.float32)
    _put_floor(fields, floor_colour)
    codes[FLOOR - 1] = floor_style
    by_weight = sorted(tracks, key=lambda t: -t.weight)
    screens = [t for t in by_weight if t.kind == SCREEN]
    others = [t for t in by_weight if t.kind != SCREEN]
    chosen = dict(enumerate(others[: slots - 2], start=2))
    if screens:
        chosen[1] = screens[0]
    for slot, track in chosen.items():
        _put(fields, slot, track, times, ticks)
        codes[slot] = track.median("style")
    palette = np.asarray(list(COLOURS.values()))
    nearest = np.argmin(np.linalg.norm(fields["colour"][0][:, None] - palette, axis=-1), axis=-1)
    core, order = canonical(project(Waves(**fields)), nearest + 0.01 * fields["scale"][0].prod(-1))
    return motion_from_poses(project(core)), ticks, Style(codes[order], scene.astype(np.float32))


def _put_floor(fields: dict[str, np.ndarray], colour: np.ndarray) -> None:
    """The floor is the world's gauge: its top is z = 0."""
    fields["presence"][:, 0], fields["semantic"][:, 0] = 1.0, FLOOR
    fields["centre"][:, 0], fields["scale"][:, 0] = (0.0, 0.0, -FLOOR_HALF_M[2]), FLOOR_HALF_M
    fields["exponents"][:, 0], fields["colour"][:, 0] = EXPONENTS["floor"], colour


def _put(fields: dict[str, np.ndarray], slot: int, track: Track, times: np.ndarray, ticks: np.ndarray) -> None:
    """Write a track into a slot; poses are interpolated between detections and constant outside them."""
    when = np.asarray([times[frame] for frame, _ in track.seen])
    kind = track.kind
    centres = np.stack([d.centre for _, d in track.seen])
    fields["presence"][:, slot], fields["semantic"][:, slot] = 1.0, kind
    centres = median_filter(centres, size=(min(3, len(centres)), 1), mode="nearest")
    for axis in range(3):
        fields["centre"][:, slot, axis] = np.interp(ticks, when, centres[:, axis])
    nearest = np.abs(ticks[:, None] - when).argmin(1)
    fields["rotation"][:, slot] = matrix_to_quaternion(np.stack([track.seen[i][1].rotation for i in nearest]))
    if kind == SCREEN:
        fields["centre"][:, slot] = np.median(centres, axis=0)
        fields["rotation"][:, slot] = matrix_to_quaternion(
            track.seen[int(np.argmax([d.weight for _, d in track.seen]))][1].rotation
        )
    scale = track.median("scale")
    fields["scale"][:, slot] = scale.mean() if kind == BALL else scale
    fields["exponents"][:, slot] = EXPONENTS[SEMANTIC_CLASSES[kind]]
    fields["colour"][:, slot] = track.median("colour")
