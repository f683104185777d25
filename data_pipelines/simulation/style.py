"""Light, background and textures: what a picture shows beside the core."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.render import visible
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix, rays
from wsm_jax.snapshot.colour import to_linear, to_srgb
from wsm_jax.typing import Array, Float, NpOrJax, pytree

_FLOOR_PATTERNS = ("plain", "checker", "stripes")


@pytree
class SceneStyle:
    """Light, background and textures of a scene of N slots; a tree of arrays, so that one compiled function draws all scenes.

    A texture is a product of square waves in wave-local coordinates: `frequency` cycles per semi-axis along each local
    axis (one axis that is not 0 gives stripes, two or three a checker), `tint` the second tone (-1 black, 0 plain, 1 white).
    """

    light: Float[NpOrJax, "3"]
    """Unit vector from the scene to the light, world frame."""
    light_colour: Float[NpOrJax, "3"]
    """Linear, about 1."""
    ambient: Float[NpOrJax, ""]
    """Share of ambient light, linear."""
    sky: Float[NpOrJax, "2 3"]
    """sRGB of the background at the top and at the bottom of the picture."""
    frequency: Float[NpOrJax, "N 3"]
    phase: Float[NpOrJax, "N 3"]
    tint: Float[NpOrJax, " N"]

    def shade(
        self, surface: dict[str, Float[Array, "H W C"]], waves: Waves, camera: Camera, shadows: bool = True
    ) -> Float[Array, "H W 3"]:
        """sRGB picture 0..1 of the surface channels (from `wsm_jax.core.render.surface`) of `waves` [N] seen by `camera`.

        rgb = texture(local, base colour) (ambient + (1 - ambient) light_colour max(0, n.l) visible), in linear light; the
        textures are box-filtered over the footprint of the pixel, so that they do not alias.
        """
        height, width = surface["coverage"].shape[:2]
        slot = jnp.maximum(surface["instance"][..., 0].astype(jnp.int32) - 1, 0)
        origin, direction = rays(camera, height, width)
        to_world = quaternion_to_matrix(camera.rotation)
        normal = surface["normal"] @ to_world.T
        pattern = self._pattern(surface, waves, camera, slot, direction, normal)
        base = to_linear(jnp.asarray(surface["base_colour"]))
        tint = jnp.asarray(self.tint)[slot][..., None]
        second = jnp.where(tint < 0, base * (1 + tint), base + (1 - base) * tint)
        albedo = base + (second - base) * pattern
        light = jnp.maximum(normal @ jnp.asarray(self.light), 0.0)
        if shadows:
            point = origin + surface["depth"] * direction + 2e-3 * normal
            # light comes from above, so the floor casts no shadow
            casters = jax.tree.map(lambda x: x[1:], waves)
            light = light * visible(casters, point.reshape(-1, 3), self.light).reshape(height, width)
        lit = albedo * (self.ambient + (1 - self.ambient) * light[..., None] * jnp.asarray(self.light_colour))
        down = ((jnp.arange(height) + 0.5) / height)[:, None, None]
        sky = jnp.asarray(self.sky)
        background = to_linear((1 - down) * sky[0] + down * sky[1])
        coverage = surface["coverage"]
        return to_srgb(coverage * lit + (1 - coverage) * background)

    def _pattern(
        self, surface: dict[str, Array], waves: Waves, camera: Camera, slot: Array, direction: Array, normal: Array
    ) -> Array:
        """Share of the second tone in every pixel, 0..1, [H W 1]."""
        height = slot.shape[0]
        turn = quaternion_to_matrix(waves.rotation)[slot]
        scale = jnp.asarray(waves.scale)[slot]
        # one pixel to the right or down moves the seen point by z (e - d (n.e) / (n.d)) in the tangent plane
        steps = quaternion_to_matrix(camera.rotation)[:, :2] / (height * camera.focal)
        facing = jnp.minimum(jnp.sum(normal * direction, -1), -0.02)[..., None]
        size = jnp.zeros_like(scale)
        for i in range(2):
            step = surface["depth"] * (steps[:, i] - direction * (normal @ steps[:, i])[..., None] / facing)
            size = size + jnp.abs(jnp.einsum("...ij,...i->...j", turn, step)) / scale
        frequency = jnp.asarray(self.frequency)[slot]
        cycles = frequency * surface["local"] + jnp.asarray(self.phase)[slot]
        # distance to the nearest change of tone, in cycles, signed by the tone, over half the footprint
        edge = jnp.abs(jnp.mod(cycles, 1.0) - 0.5) - 0.25
        tone = jnp.clip(edge / jnp.maximum(0.5 * frequency * size, 1e-3), -1.0, 1.0)
        tone = jnp.where(frequency > 0, tone, 1.0)
        return 0.5 - 0.5 * jnp.prod(tone, -1, keepdims=True)


def draw_style(rng: np.random.Generator, scale: Float[NpOrJax, "N 3"]) -> SceneStyle:
    """A random style for waves of semi-axes `scale` (m); slot 0 is the floor, slot 1 the screen."""
    scale = np.asarray(scale)
    count = len(scale)
    azimuth, elevation = rng.uniform(-np.pi, 0.0), rng.uniform(np.deg2rad(40), np.deg2rad(75))
    warmth = rng.uniform(-1.0, 1.0)
    frequency, phase, tint = np.zeros((count, 3)), rng.uniform(0.0, 1.0, (count, 3)), np.zeros(count)
    pattern = _FLOOR_PATTERNS[rng.integers(3)]
    if pattern != "plain":
        frequency[0, :2] = scale[0, :2] / rng.uniform(0.8, 1.6)
        if pattern == "stripes":
            frequency[0, rng.integers(2)] = 0.0
        tint[0] = rng.uniform(-0.5, -0.15)
    for slot in range(2, count):
        if rng.random() < 0.5:
            continue
        # two to four tones across the object, on one axis (stripes) or on all (checker)
        frequency[slot] = scale[slot] / (np.mean(scale[slot]) * rng.uniform(0.8, 1.3))
        if rng.random() < 0.5:
            keep = rng.integers(3)
            frequency[slot] *= np.arange(3) == keep
        tint[slot] = rng.uniform(-0.75, -0.3) if rng.random() < 0.6 else rng.uniform(0.3, 0.7)
    top = np.array([0.55, 0.66, 0.82]) + 0.08 * warmth * np.array([1, 0, -1]) + rng.uniform(-0.06, 0.06, 3)
    bottom = top + rng.uniform(0.04, 0.14)
    light = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    return SceneStyle(
        light=light.astype(np.float32),
        light_colour=(1.05 * (1.0 + 0.09 * warmth * np.array([1, 0.2, -1]))).astype(np.float32),
        ambient=np.full((), rng.uniform(0.35, 0.55), np.float32),
        sky=np.clip(np.stack([top, bottom]), 0, 1).astype(np.float32),
        frequency=frequency.astype(np.float32),
        phase=phase.astype(np.float32),
        tint=tint.astype(np.float32),
    )
