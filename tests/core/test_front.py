"""The picture found from the front, against the one composited of all waves of every ray."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.test_render import SIDE, camera_at, picture, random_scene, surface, waves
from wsm_jax.core import render

HERE = camera_at(1.6, -1.6, 0.8)


def both(scene, side=SIDE, camera=HERE):
    """The same picture from the front, and composited."""
    return (jax.device_get(surface(scene, camera, side, side, cull=cull)) for cull in (True, False))


@pytest.mark.parametrize("presence", ["whole", "any", "some"])
def test_it_is_the_composited_picture(presence):
    rng = np.random.default_rng(3)
    for seed in range(4):
        values = {"whole": np.ones(8), "any": rng.random(8), "some": rng.choice([0.0, 0.25, 0.5, 1.0], 8)}[presence]
        found, expected = both(random_scene(seed, 8, presence=np.float32(values)))
        assert (expected["coverage"] > 0.5).mean() > 0.05
        same = found["instance"] == expected["instance"]
        assert same.mean() > 1 - 3 / SIDE**2, "but for a ray that grazes"
        for name in render.SURFACE:
            np.testing.assert_allclose(
                found[name][same[..., 0]], expected[name][same[..., 0]], rtol=2e-3, atol=2e-3, err_msg=name
            )
            assert np.median(np.abs(found[name] - expected[name])) <= 2e-6, name


def test_of_waves_at_one_place_the_first_is_seen_and_those_behind_it_through_it():
    colour = np.eye(3, dtype=np.float32)
    for presence, instance in (((1, 1, 1), 1), ((0, 1, 1), 2), ((0.5, 1, 1), 1), ((0.25, 1, 1), 2), ((0.25, 0.25, 1), 3)):
        found, expected = both(waves(3, presence, colour=colour))
        middle = SIDE // 2, SIDE // 2
        assert found["instance"][middle] == expected["instance"][middle] == instance, presence
        np.testing.assert_allclose(found["base_colour"][middle], expected["base_colour"][middle], atol=1e-6)
        np.testing.assert_allclose(found["coverage"][middle], 1.0, atol=1e-6)


def test_a_wave_changes_no_bit_of_the_pixels_that_do_not_see_it():
    """It changes with which rays theirs are cast, and in how many steps."""
    scene = random_scene(5, 8, presence=np.float32([1, 0.5, 1, 1, 0.5, 1, 1, 0.5]))
    alone = scene.replace(presence=scene.presence * (np.arange(8) == 5))
    without = scene.replace(presence=scene.presence * (np.arange(8) != 5))
    free = np.asarray(picture(alone, HERE)["coverage"][..., 0] == 0)
    assert 0.3 < free.mean() < 0.95
    found, expected = (jax.device_get(picture(given, HERE)) for given in (scene, without))
    for name in found:
        np.testing.assert_array_equal(found[name][free], expected[name][free], err_msg=name)


def test_its_derivatives_are_those_of_the_composited_picture():
    scene, camera = jax.tree.map(jnp.asarray, (random_scene(6, 4, presence=np.float32([1, 0.5, 1, 0.25])), HERE))

    @jax.jit
    def slopes(scene, camera):
        def loss(presence, centre, camera, cull):
            seen = scene.replace(presence=presence, centre=centre)
            pictures = render.surface(seen, camera, 8, 8, channels=["depth", "normal", "base_colour"], cull=cull)
            return sum(jnp.sum(jnp.sin(picture)) for picture in pictures.values())

        grad = jax.grad(loss, (0, 1, 2))
        return [grad(scene.presence, scene.centre, camera, cull) for cull in (True, False)]

    found, expected = slopes(scene, camera)
    assert all(np.abs(x).max() > 1e-3 for x in (found[0], found[1], found[2].position))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
