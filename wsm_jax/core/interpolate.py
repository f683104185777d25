"""Interpolation of a core between its ticks, for any time and frame rate."""

import jax.numpy as jnp

from wsm_jax.core.rotation import slerp, turned
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Array, Float, NpOrJax

_HELD = ("exponents", "colour", "material", "semantic", "instance")


def interpolate(core: Waves, core_time: Float[NpOrJax, " K"], time: Float[NpOrJax, "*t"]) -> Waves:
    """The waves [*t N ...] at `time` (s) of a core [K N ...] with ticks at `core_time` (s, increasing).

    Centre: cubic Hermite of positions and velocities (exact for constant acceleration). Rotation: slerp along the shorter
    arc. Presence, scale and velocities: linear. Other fields hold the value of the last tick. An empty slot (presence 0) has no
    pose: a wave present at only one of two ticks fades in or out along a straight path with the velocities of that tick. Times
    outside the ticks are clamped.
    """
    # relative to the first tick, so that late float64 times keep their precision in float32
    time, ticks = jnp.asarray(time - core_time[0]), jnp.asarray(core_time - core_time[0])
    if len(ticks) == 1:
        return Waves(**{name: jnp.broadcast_to(x[0], time.shape + x.shape[1:]) for name, x in _fields(core).items()})
    time = jnp.clip(time, ticks[0], ticks[-1])
    held = jnp.searchsorted(ticks, time, side="right") - 1
    left = jnp.minimum(held, len(ticks) - 2)
    step = ticks[left + 1] - ticks[left]
    u = (time - ticks[left]) / step
    fields = _fields(core)
    old, new = ({name: x[left + i] for name, x in fields.items()} for i in (0, 1))
    weight = u[..., None]
    out = {name: fields[name][held] for name in _HELD}
    born, gone = ((a["presence"] == 0) & (b["presence"] > 0) for a, b in ((old, new), (new, old)))
    out |= {name: _where(born, new[name], out[name]) for name in _HELD}
    old, new = _extrapolated(born, new, old, -step), _extrapolated(gone, old, new, step)
    out["presence"] = (1 - weight) * old["presence"] + weight * new["presence"]
    for name in ("scale", "velocity", "angular_velocity"):
        out[name] = (1 - weight[..., None]) * old[name] + weight[..., None] * new[name]
    out["centre"] = _hermite(old, new, weight[..., None], step[..., None, None])
    out["rotation"] = slerp(old["rotation"], new["rotation"], weight[..., None])
    return Waves(**out)


def _fields(core: Waves) -> dict[str, Array]:
    return {name: jnp.asarray(getattr(core, name)) for name in FIELDS}


def _extrapolated(there: Array, wave: dict[str, Array], other: dict[str, Array], step: Array) -> dict[str, Array]:
    """`other`, replaced where `there` is set by `wave` extrapolated for `step` seconds; presence is that of `other`."""
    step = step[..., None, None]
    moved = wave | {
        "centre": wave["centre"] + step * wave["velocity"],
        "rotation": turned(wave["rotation"], step * wave["angular_velocity"]),
        "presence": other["presence"],
    }
    return {name: _where(there, moved[name], other[name]) for name in wave}


def _where(mask: Array, a: Array, b: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)


def _hermite(old: dict[str, Array], new: dict[str, Array], u: Array, step: Array) -> Array:
    return (
        (1 + 2 * u) * (1 - u) ** 2 * old["centre"]
        + u * (1 - u) ** 2 * step * old["velocity"]
        + u**2 * (3 - 2 * u) * new["centre"]
        + u**2 * (u - 1) * step * new["velocity"]
    )
