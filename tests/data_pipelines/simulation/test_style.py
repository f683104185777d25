"""Shading: exact on a plain surface, shadows fall where they must, textures keep their tones and do not alias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.simulation.scene import draw
from data_pipelines.simulation.style import SceneStyle, draw_style
from wsm_jax.core.render import surface
from wsm_jax.snapshot import Camera, Waves, look_at
from wsm_jax.snapshot.waves import empty

SIZE = 24

see = jax.jit(lambda waves, camera: surface(waves, camera, SIZE, SIZE))
shade = jax.jit(SceneStyle.shade, static_argnums=4)


def flat_style(count: int, **changes) -> SceneStyle:
    """White light from straight above, no texture, a mid-grey background."""
    zeros = np.zeros((count, 3), np.float32)
    fields = {
        "light": np.array([0.0, 0.0, 1.0], np.float32),
        "light_colour": np.ones(3, np.float32),
        "ambient": np.full((), 0.4, np.float32),
        "sky": np.full((2, 3), 0.5, np.float32),
        "frequency": zeros,
        "phase": zeros,
        "tint": zeros[:, 0],
    }
    return SceneStyle(**(fields | changes))


@pytest.fixture(scope="module")
def stage() -> tuple[Waves, Camera, dict]:
    """A floor of colour 0.6 and a white ball of radius 0.4 that floats 1.2 m above its middle."""
    waves = empty(3)
    waves.presence[[0, 2]] = 1.0
    waves.scale[0], waves.exponents[0], waves.centre[0], waves.colour[0] = (6, 6, 0.25), 0.1, (0, 0, -0.25), 0.6
    waves.scale[2], waves.centre[2], waves.colour[2] = 0.4, (0, 0, 1.2), 0.9
    camera = look_at(np.array([0.0, -5.0, 4.0], np.float32), np.array([0.0, 0.0, 0.3], np.float32))
    return waves, camera, see(waves, camera)


def test_lit_floor_has_its_own_colour_and_the_shadow_the_ambient_share(stage):
    waves, camera, channels = stage
    picture = np.asarray(shade(flat_style(3), channels, waves, camera, True))
    floor = np.asarray(channels["instance"])[..., 0] == 1
    values = np.unique(np.round(picture[floor], 3))
    # sRGB 0.6 is 0.3185 linear; 0.4 of it is 0.1274 linear, sRGB 0.3926
    assert np.allclose([values.min(), values.max()], [0.3926, 0.6], atol=2e-3)
    shaded = np.argwhere(floor & (picture[..., 0] < 0.45))
    assert 3 < len(shaded) < 80
    # the shadow of a ball above the middle, lit from above, lies in the middle column
    assert abs(shaded[:, 1].mean() - (SIZE - 1) / 2) < 0.6
    unlit = np.asarray(shade(flat_style(3), channels, waves, camera, False))
    assert np.allclose(unlit[floor], 0.6, atol=2e-3)


def test_background_shows_where_nothing_is(stage):
    waves, camera, _ = stage
    up = camera.replace(rotation=look_at(camera.position, camera.position + np.array([0, 1, 1], np.float32)).rotation)
    picture = shade(flat_style(3), see(waves, up), waves, up, False)
    assert np.allclose(picture, 0.5, atol=1e-4)


def test_textures_keep_to_their_two_tones_and_blend_far_away(stage):
    waves, camera, channels = stage
    style = flat_style(3, tint=np.array([-0.5, 0, 0], np.float32))
    floor = np.asarray(channels["instance"])[..., 0] == 1

    def tones(cycles: float) -> np.ndarray:
        frequency = np.array([[cycles, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
        picture = shade(style.replace(frequency=frequency), channels, waves, camera, False)
        return np.asarray(picture)[floor][:, 0]

    # linear 0.3185 and half of it: sRGB 0.6 and 0.4355
    wide, fine = tones(3.0), tones(400.0)
    assert wide.min() == pytest.approx(0.4355, abs=5e-3) and wide.max() == pytest.approx(0.6, abs=5e-3)
    assert np.ptp(fine) < 0.05, "a texture finer than the pixels is their mean"
    assert 0.46 < fine.mean() < 0.55


def test_drawn_styles_are_valid():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        style = draw_style(rng, draw(rng).waves.scale)
        assert np.linalg.norm(style.light) == pytest.approx(1.0, abs=1e-5)
        assert style.light[2] > 0.6 and style.light[1] <= 0, "from above, on the camera's side"
        assert 0.35 <= float(style.ambient) <= 0.55
        assert np.all((np.asarray(style.sky) >= 0) & (np.asarray(style.sky) <= 1))
        assert np.all(np.abs(style.tint) < 0.8)
        assert float(jnp.max(style.light_colour)) < 1.2
