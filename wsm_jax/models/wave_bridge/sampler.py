"""The wave bridge at inference: surface and style to pixels, and, backwards in level, pixels to surface and style."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.config import BOUND_LATER, require
from wsm_jax.core import interpolate, surface
from wsm_jax.flow import METHODS, integrate
from wsm_jax.layers.patches import patches, unpatch
from wsm_jax.models.wave_bridge import state as flow
from wsm_jax.models.wave_bridge.network import WaveBridge
from wsm_jax.models.wave_bridge.style import Style
from wsm_jax.snapshot import Camera, Waves, decode, encode
from wsm_jax.typing import Array, Float, Key, NpOrJax, PyTree

FRAMES_PER_CALL = 8


@dataclasses.dataclass(frozen=True)
class BridgeSampler:
    """A trained bridge. Pictures may have any size of at least a pixel per token row; channels are in physical units.

    Raises ValueError for an unknown solver.
    """

    network: WaveBridge
    size: tuple[int, int]
    """Height and width in pixels of the pictures it was trained on."""
    steps: int
    """Solver steps of each direction."""
    method: str
    """Name of a row of `wsm_jax.flow.METHODS`."""
    stage: str = "bridge"
    """Stage of the experiment whose weights it takes."""
    params: PyTree = dataclasses.field(default=None, metadata=BOUND_LATER)
    """Averaged weights of that stage; None until they are bound."""

    def __post_init__(self) -> None:
        require(self, 1, "steps")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}; the methods are {', '.join(sorted(METHODS))}")

    @property
    def layout(self) -> flow.BridgeLayout:
        """Blocks of the state."""
        return self.network.layout

    def surface(
        self, core: Waves, core_time: NpOrJax, camera: Camera, time: NpOrJax, size: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """Surface channels [T H W C] of a core at the times (s) of its cameras, one per frame; FRAMES_PER_CALL at a time."""
        # from the first tick on and in float64, so that times late in a long world keep their precision
        ticks, time = (np.asarray(x, np.float64) - np.float64(core_time[0]) for x in (core_time, time))
        core, camera = jax.tree.map(np.asarray, (core, camera))
        parts = []
        for first in range(0, len(time), FRAMES_PER_CALL):
            index = np.minimum(np.arange(first, first + FRAMES_PER_CALL), len(time) - 1)
            parts.append(_surface(_interpolate(core, ticks, time[index]), camera[index], size))
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(time)], *parts)

    def render(self, channels: Mapping[str, NpOrJax], style: Style) -> Float[np.ndarray, "T H W 3"]:
        """Pictures 0..1 of surface channels (all that the bridge knows, "base_colour" and "instance") in a style."""
        channels = {name: np.asarray(values) for name, values in channels.items()}
        ends = {name: encode(name, channels[name]) for name in self.layout.channels}
        ends["rgb"] = encode("base_colour", channels["base_colour"])
        masks = flow.wave_masks(channels["instance"], self.layout.waves)
        frames = masks.shape[0]
        codes = (np.broadcast_to(np.asarray(c), (frames, *c.shape)) for c in (style.waves, style.scene))
        ends["style"] = flow.style_raster(masks, *codes)
        given = (*self.layout.channels,)
        out = self.transport(ends, 0.0, 1.0, start_known=(*given, "rgb", "style"), end_known=(*given, "rgb"))
        return np.clip(decode("rgb", out["rgb"]), 0.0, 1.0)

    def perceive(self, rgb: Float[NpOrJax, "T H W 3"], channels: Mapping[str, NpOrJax] | None = None) -> dict[str, np.ndarray]:
        """Encoded blocks at the core end of pictures 0..1: "rgb" is base colour, the surface channels, "style", "remainder".

        `channels` are surface channels that are known (physical units); they come back as they were given.
        """
        ends = {"rgb": encode("rgb", rgb)}
        ends |= {name: encode(name, values) for name, values in (channels or {}).items() if name in self.layout.channels}
        known = tuple(ends)
        return self.transport(ends, 1.0, 0.0, start_known=known, end_known=self.layout.order[:-1])

    def imagine_picture(self, channels: Mapping[str, NpOrJax], key: Key) -> Float[np.ndarray, "T H W 3"]:
        """Pictures 0..1 from any subset of channels alone: what is not given is noise, and inferred on the way."""
        ends = {("rgb" if n == "base_colour" else n): encode(n, x) for n, x in channels.items()}
        names = tuple(name for name in ends if name != "rgb")
        out = self.transport(ends, 0.0, 1.0, start_known=tuple(ends), end_known=(*names, "rgb"), key=key)
        return np.clip(decode("rgb", out["rgb"]), 0.0, 1.0)

    def transport(
        self,
        blocks: Mapping[str, NpOrJax],
        start: float,
        stop: float,
        start_known: Sequence[str],
        end_known: Sequence[str],
        key: Key | None = None,
    ) -> dict[str, np.ndarray]:
        """Carries encoded blocks [T H W c] from level `start` to `stop` (0 and 1 or 1 and 0).

        A block without a value starts as noise: seeded per frame index and canvas position alike, so that equal inputs give
        equal pictures. Blocks known at both ends are held. Runs FRAMES_PER_CALL frames at a time.
        """
        blocks = {name: np.asarray(x, np.float32) for name, x in blocks.items()}
        frames, *size = next(iter(blocks.values())).shape[:3]
        height, width = _canvas(size[0], size[1], self.network.rows)
        root = jax.random.key(0) if key is None else key
        core_known, pixel_known = (start_known, end_known) if start == 0 else (end_known, start_known)
        known = np.concatenate([self.layout.bits(core_known), self.layout.bits(pixel_known)])
        held = [name for name in blocks if name in start_known and name in end_known and name != "rgb"]
        moving = np.concatenate([np.full(n, name not in held, np.float32) for name, n in self.layout.sizes.items()])
        levels = np.linspace(start, stop, self.steps + 1, dtype=np.float32)
        code_noise = np.float32(self.network.pixel_noise if start == 1 else 1.0)
        outputs = []
        for first in range(0, frames, FRAMES_PER_CALL):
            part = {name: x[first : first + FRAMES_PER_CALL] for name, x in blocks.items()}
            count = next(iter(part.values())).shape[0]
            more = ((0, FRAMES_PER_CALL - count), (0, height - size[0]), (0, width - size[1]), (0, 0))
            part = {name: np.pad(x, more, mode="edge") for name, x in part.items()}
            state = _state(self.layout, part, root, code_noise)
            out = _transport(self.network, self.method, self.params["bridge"], state, levels, known, moving)
            outputs.append((out, count))
        whole = np.concatenate([np.asarray(out)[:count, : size[0], : size[1]] for out, count in outputs])
        return flow.split(whole, self.layout.sizes)


@functools.partial(jax.jit, static_argnames="layout")
def _state(layout: flow.BridgeLayout, part: dict[str, Array], root: Key, code_noise: Array) -> Float[Array, "T H W S"]:
    """The joined state; missing blocks are one noise image, the same for every frame. `code_noise` is the std of codes."""
    filled = {}
    shape = next(iter(part.values())).shape[:3]
    for i, (name, components) in enumerate(layout.sizes.items()):
        noise = jax.random.normal(jax.random.fold_in(root, i), (*shape[1:], components))
        noise = noise * jnp.where(name in flow.CODES, code_noise, 1.0)
        filled[name] = part[name] if name in part else jnp.broadcast_to(noise, (*shape, components))
    return flow.join(filled, layout.order)


@functools.partial(jax.jit, static_argnames=("network", "method"))
def _transport(
    network: WaveBridge, method: str, params: PyTree, state: Array, levels: Array, known: Array, moving: Array
) -> Array:
    rows = state.shape[0]
    bits = jnp.broadcast_to(known, (rows, known.shape[0]))

    def velocity(x: Array, level: Array) -> Array:
        each = jnp.broadcast_to(level, (rows,))
        low, high = network.apply({"params": params}, x, each, bits)  # type: ignore[misc]
        return moving * flow.velocity_of_ends(x, low, high, each)

    return unpatch(integrate(velocity, patches(state, network.rows), levels, METHODS[method]))


# apart from the caster, which then is compiled once a size, whatever the length of the core
_interpolate = jax.jit(interpolate)


@functools.partial(jax.jit, static_argnames="size")
def _surface(waves: Waves, camera: Camera, size: tuple[int, int]) -> dict[str, Array]:
    def one(pair: tuple[Waves, Camera]) -> dict[str, Array]:
        return surface(*pair, *size)

    return jax.lax.map(one, (waves, camera))


def _canvas(height: int, width: int, rows: int) -> tuple[int, int]:
    """The least size that holds the picture and divides into `rows` rows of square patches; edges are repeated to fill it."""
    if height < rows or width < 1:
        raise ValueError(f"size {height} x {width}: needed a height of at least {rows} pixels, one for each row of tokens")
    side = -(-height // rows)
    return rows * side, -(-width // side) * side
