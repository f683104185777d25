"""The state of the world: a set of superquadric waves, at one instant or at K ticks."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from wsm_jax.files import write_file
from wsm_jax.typing import Float, Int, NpOrJax, pytree

TICK_HZ = 8.0
"""Rate of the core in ticks per second."""

SEMANTIC_CLASSES = ("nothing", "floor", "screen", "ball", "box", "cylinder", "cushion", "thing")
"""Names of `Waves.semantic`; index 0 is background, "thing" is an object of unknown shape."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.14, 0.12),
    "green": (0.14, 0.62, 0.20),
    "blue": (0.14, 0.28, 0.86),
    "yellow": (0.93, 0.83, 0.14),
    "purple": (0.55, 0.18, 0.70),
    "orange": (0.95, 0.50, 0.08),
    "cyan": (0.18, 0.78, 0.82),
    "white": (0.92, 0.92, 0.92),
}
"""Colour name -> sRGB; at least 0.32 apart."""

FIELDS: dict[str, int] = {
    "presence": 0,
    "centre": 3,
    "scale": 3,
    "rotation": 4,
    "exponents": 2,
    "colour": 3,
    "material": 2,
    "velocity": 3,
    "angular_velocity": 3,
    "semantic": 0,
    "instance": 0,
}
"""Field name -> number of components (0: one scalar for each wave, no trailing axis)."""


@pytree
class Waves:
    """N superquadric waves; any leading axes (ticks K, batch B) are shared by all fields.

    A wave with `presence` 0 is an empty slot. Several waves with one `instance` id form one object; id 0 is scenery that
    belongs to no object. Rotation takes wave-local to world coordinates.
    """

    presence: Float[NpOrJax, "*lead N"]
    """Shape probability, 0..1."""
    centre: Float[NpOrJax, "*lead N 3"]
    """World position of the centre, m."""
    scale: Float[NpOrJax, "*lead N 3"]
    """Semi-axes, m, positive."""
    rotation: Float[NpOrJax, "*lead N 4"]
    """Unit quaternion (w, x, y, z)."""
    exponents: Float[NpOrJax, "*lead N 2"]
    """(e1, e2) in [0.1, 1.9]: e1 along local z, e2 in the local xy plane; 1 is round, 0.1 a box, 1.9 a diamond."""
    colour: Float[NpOrJax, "*lead N 3"]
    """Base colour (albedo), sRGB values 0..1."""
    material: Float[NpOrJax, "*lead N 2"]
    """(roughness, metalness), 0..1."""
    velocity: Float[NpOrJax, "*lead N 3"]
    """Velocity of the centre, m/s, world frame."""
    angular_velocity: Float[NpOrJax, "*lead N 3"]
    """rad/s, world frame."""
    semantic: Int[NpOrJax, "*lead N"]
    """Index into SEMANTIC_CLASSES."""
    instance: Int[NpOrJax, "*lead N"]
    """Object id, 1.. ; 0 is scenery."""

    @property
    def count(self) -> int:
        """Number of slots N."""
        return self.presence.shape[-1]

    def __getitem__(self, index: Any) -> "Waves":
        """Indexes the leading axes: `waves[k]` is the state at tick k."""
        return Waves(**{name: getattr(self, name)[index] for name in FIELDS})


def empty(count: int, lead: tuple[int, ...] = ()) -> Waves:
    """`count` empty slots: presence 0, unit spheres of 0.5 m at the origin, at rest."""
    shape = (*lead, count)
    rotation = np.zeros((*shape, 4), np.float32)
    rotation[..., 0] = 1.0
    return Waves(
        presence=np.zeros(shape, np.float32),
        centre=np.zeros((*shape, 3), np.float32),
        scale=np.full((*shape, 3), 0.5, np.float32),
        rotation=rotation,
        exponents=np.ones((*shape, 2), np.float32),
        colour=np.full((*shape, 3), 0.5, np.float32),
        material=np.tile(np.asarray([1.0, 0.0], np.float32), (*shape, 1)),
        velocity=np.zeros((*shape, 3), np.float32),
        angular_velocity=np.zeros((*shape, 3), np.float32),
        semantic=np.zeros(shape, np.int32),
        instance=np.zeros(shape, np.int32),
    )


def to_json(waves: Waves, time: Float[NpOrJax, "*lead"] | float | None = None) -> str:
    """The core as readable JSON: {"format", "version", "tick_hz", "time", "classes", "waves": {field: nested list}}.

    Raises ValueError, as `from_json` does, for invalid values (not finite, a scale that is not positive, ...).
    """
    _check({name: np.asarray(getattr(waves, name)) for name in FIELDS}, "to_json")
    fields = {name: np.asarray(getattr(waves, name)).tolist() for name in FIELDS}
    head = {"format": "wsm_core", "version": 1, "tick_hz": TICK_HZ, "classes": list(SEMANTIC_CLASSES)}
    return json.dumps({**head, "time": None if time is None else np.asarray(time).tolist(), "waves": fields})


def from_json(text: str, source: str = "core JSON") -> tuple[Waves, np.ndarray | None]:
    """Reads the text of `to_json`; returns the waves and their tick times (s), if it has them.

    Raises ValueError, naming `source`, for text that is not core JSON, a newer version, a missing field, a wrong shape, or
    invalid values.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{source}: not JSON ({error}); needed a core written by wsm_jax") from error
    if not isinstance(data, dict) or data.get("format") != "wsm_core":
        raise ValueError(f'{source}: no "format": "wsm_core" in it; needed a core written by wsm_jax')
    if data.get("version") != 1:
        raise ValueError(f"{source}: core version {data.get('version')!r}; this release reads version 1")
    if data.get("classes", list(SEMANTIC_CLASSES)) != list(SEMANTIC_CLASSES):
        raise ValueError(f"{source}: classes {data['classes']}; this release knows {list(SEMANTIC_CLASSES)}")
    fields = data.get("waves")
    if not isinstance(fields, dict):
        raise ValueError(f'{source}: "waves" is {type(fields).__name__}; needed an object of fields {sorted(FIELDS)}')
    missing = sorted(set(FIELDS) - set(fields))
    if missing:
        raise ValueError(f"{source}: fields {missing} are missing; needed {sorted(FIELDS)}")
    arrays: dict[str, np.ndarray] = {}
    for name, components in FIELDS.items():
        values = _numbers(fields[name], f"field {name!r}", source)
        slots = arrays["presence"].shape if arrays else values.shape
        shape = (*slots, components) if components else slots
        if not slots or values.shape not in (shape, slots if 0 in slots else shape):
            raise ValueError(f"{source}: field {name!r} has shape {values.shape}, needed {shape or '(waves,)'}")
        arrays[name] = values.reshape(shape)
    _check(arrays, source)
    waves = Waves(**{name: a.astype(np.int32 if name in _LABELS else np.float32) for name, a in arrays.items()})
    if data.get("time") is None:
        return waves, None
    time = _numbers(data["time"], '"time"', source)
    if time.shape != waves.presence.shape[:-1] or not np.isfinite(time).all():
        raise ValueError(f"{source}: times of shape {time.shape} for ticks {waves.presence.shape[:-1]}; needed one (s) a tick")
    return waves, time.astype(np.float32)


_LABELS = ("semantic", "instance")
_SHARES = ("presence", "colour", "material")
_ROUNDING = 1e-5


def _numbers(values: Any, what: str, source: str) -> np.ndarray:
    """A nested list of JSON numbers as float64."""
    try:
        return np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{source}: {what} is not a rectangular array of numbers ({error})") from error


def _check(arrays: dict[str, np.ndarray], source: str) -> None:
    """Raises ValueError for values that no state of a world can have."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{source}: field {name!r} holds a value that is not finite")
        if name in _LABELS and np.any((values != np.rint(values)) | (values < 0) | (values > np.iinfo(np.int32).max)):
            raise ValueError(f"{source}: field {name!r} holds a value that is not a label; needed integers >= 0")
        if name in _SHARES and values.size and (values.min() < -_ROUNDING or values.max() > 1 + _ROUNDING):
            raise ValueError(f"{source}: field {name!r} holds {values.min():g}..{values.max():g}; needed values from 0 to 1")
        if name in ("scale", "exponents") and np.any(values <= 0):
            raise ValueError(f"{source}: field {name!r} holds {values.min()}; needed values above 0")
    if np.any(np.linalg.norm(arrays["rotation"], axis=-1) < 1e-6):
        raise ValueError(f"{source}: field 'rotation' holds a quaternion of length 0; (1, 0, 0, 0) is the identity")
    if np.any(arrays["semantic"] >= len(SEMANTIC_CLASSES)):
        raise ValueError(f"{source}: field 'semantic' holds {arrays['semantic'].max()}; the classes are {SEMANTIC_CLASSES}")


def save(waves: Waves, path: str | Path, time: Float[NpOrJax, "*lead"] | float | None = None) -> None:
    """Writes `to_json` to `path` atomically. Raises ValueError for invalid values."""
    write_file(path, to_json(waves, time))


def load(path: str | Path) -> tuple[Waves, np.ndarray | None]:
    """Reads a file written by `save`. Raises FileNotFoundError or ValueError, both naming the path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such core file")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text ({error.reason}); needed a core written by wsm_jax") from error
    return from_json(text, str(path))


def stack(states: list[Waves]) -> Waves:
    """Joins states of equal shape along a new leading axis."""
    return Waves(**{f.name: np.stack([np.asarray(getattr(s, f.name)) for s in states]) for f in dataclasses.fields(Waves)})
