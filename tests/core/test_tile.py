"""Culling by tiles changes no picture, and leaves out what a tile cannot see."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.core import composite, render, tile
from wsm_jax.snapshot import look_at
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.snapshot.waves import empty

COUNT, SIDE = 6, 32
CHANNELS = ("depth", "instance", "coverage")
LENS = np.float32([-0.2, 0.03, 0.002, -0.001, 0.0])


def scene(seed, scale=(0.1, 0.9), presence=1.0):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(COUNT, 4))
    return empty(COUNT).replace(
        presence=np.float32(np.broadcast_to(presence, COUNT)),
        centre=rng.uniform(-1.2, 1.2, (COUNT, 3)).astype(np.float32),
        scale=np.exp(rng.uniform(*np.log(scale), (COUNT, 3))).astype(np.float32),
        rotation=(q / np.linalg.norm(q, axis=-1, keepdims=True)).astype(np.float32),
        exponents=rng.uniform(0.1, 1.9, (COUNT, 2)).astype(np.float32),
        colour=rng.random((COUNT, 3)).astype(np.float32),
    )


def cameras():
    plain = look_at(np.float32([2.2, -1.7, 1.2]), np.zeros(3, np.float32))
    flat = look_at(np.float32([3.0, -1.0, 2.0]), np.zeros(3, np.float32)).replace(
        focal=np.asarray(0.4, np.float32), orthographic=True
    )
    return {"pinhole": plain, "lens": plain.replace(distortion=LENS), "orthographic": flat}


@partial(jax.jit, static_argnames=("height", "width", "cull", "softness"))
def picture(waves, camera, height, width, cull, softness=0.0):
    return render.surface(waves, camera, height, width, cull=cull, softness=softness, rays_per_chunk=256, channels=CHANNELS)


@pytest.mark.parametrize("kind", ["pinhole", "lens", "orthographic"])
def test_a_culled_picture_is_the_picture(kind):
    camera = cameras()[kind]
    for seed, presence in ((0, 1.0), (1, np.random.default_rng(1).random(COUNT))):
        waves = scene(seed, presence=presence)
        whole, culled = (picture(waves, camera, SIDE, SIDE - 5, cull) for cull in (False, True))
        assert 0.05 < np.mean(whole["coverage"] > 0.05) < 0.95
        for name, values in whole.items():
            np.testing.assert_allclose(culled[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("cull", [True, False])
def test_of_many_waves_the_nearest_is_seen(cull):
    """40 of them, more than any program for few writes out or compares by pairs."""
    camera, parts = cameras()["pinhole"], [scene(seed, scale=(0.05, 0.4)) for seed in range(7)]
    waves = jax.tree.map(lambda *x: np.concatenate(x)[:40], *parts)
    found = picture(waves, camera, SIDE, SIDE, cull)
    x, y = (jnp.asarray(v) for v in pixel_plane(camera, SIDE, SIDE))
    way = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.asarray(render.quaternion_to_matrix(camera.rotation)).T
    depth = np.asarray(render.cast(waves, np.broadcast_to(camera.position, way.shape), np.float32(way)))
    nearest = np.where(depth.min(0) < 1e6, depth.argmin(0) + 1, 0)
    assert len(np.unique(nearest)) > 20
    same = np.asarray(found["instance"]).ravel() == nearest
    assert same.mean() > 0.995, "all but rays that graze a wave"
    np.testing.assert_allclose(np.asarray(found["depth"]).ravel()[same], np.where(nearest, depth.min(0), 0)[same], rtol=1e-4)


def test_a_culled_soft_picture_is_the_picture():
    camera, waves = cameras()["pinhole"], scene(2, scale=(0.05, 0.2))
    whole, culled = (picture(waves, camera, SIDE, SIDE, cull, softness=0.004) for cull in (False, True))
    # the logarithm of the gauge is rounded to about 1e-7, and divided by the softness
    np.testing.assert_allclose(culled["coverage"], whole["coverage"], atol=1.2e-7 / 0.004)


def test_no_tile_loses_a_wave_and_most_lose_most():
    for seed in range(4):
        waves, camera = scene(seed), cameras()["pinhole"]
        x, y = (jnp.asarray(v) for v in pixel_plane(camera, SIDE, SIDE))
        grid = tile.TileGrid(SIDE, SIDE, 8)
        every = jnp.arange(grid.rows * grid.columns)
        found = tile.candidates(waves, camera, *tile.separable(camera, x, y), grid.side)
        seen = np.asarray(found.by(every))
        np.testing.assert_array_equal(found.counts(), seen.sum(1))
        way = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
        turn = np.asarray(render.quaternion_to_matrix(camera.rotation))
        depth = render.cast(waves, np.broadcast_to(camera.position, way.shape), np.float32(way @ turn.T))
        hit = np.stack([grid.pixels(one, every).any(-1) for one in jnp.float32(depth < 1e6).reshape(COUNT, SIDE, SIDE)], -1)
        assert (seen >= hit).all()
        assert hit.sum() <= seen.sum() < 0.8 * seen.size


def test_waves_behind_the_camera_are_left_out_of_every_tile():
    waves, camera = scene(3), look_at(np.float32([9, 0, 0]), np.float32([20, 0, 1]))
    x, y = (jnp.asarray(v) for v in pixel_plane(camera, SIDE, SIDE))
    assert not np.asarray(tile.candidates(waves, camera, *tile.separable(camera, x, y), 8).counts()).any()


@pytest.mark.parametrize(("height", "width", "side"), [(20, 27, 8), (16, 8, 4), (3, 5, 8)])
def test_tiles_make_up_the_picture_in_any_order(height, width, side):
    grid, picture = tile.TileGrid(height, width, side), np.random.default_rng(0).random((height, width, 2)).astype(np.float32)
    order = jnp.asarray(np.random.default_rng(1).permutation(grid.rows * grid.columns))
    values = jnp.stack([grid.pixels(jnp.asarray(picture[..., c]), order) for c in range(2)], -1)
    assert values.shape == (len(order), side**2, 2)

    def placed(values):
        drawn = grid.blank(2)
        for one, place in zip(values, order, strict=True):
            drawn = grid.placed(drawn, one, place)
        return grid.finished(drawn)

    drawn, back = jax.vjp(placed, values)
    np.testing.assert_array_equal(drawn, picture)
    # the derivative of a permutation is the permutation, and its transpose the way back
    np.testing.assert_array_equal(jax.jvp(placed, (values,), (values,))[1], picture)
    (pulled,) = back(jnp.asarray(picture))
    whole = jnp.zeros((grid.rows * side, grid.columns * side)).at[:height, :width].set(1.0)
    np.testing.assert_array_equal(pulled, values * grid.pixels(whole, order)[..., None])


def test_a_column_stands_for_all_that_repeat_it():
    grid, every = tile.TileGrid(10, 13, 4), jnp.arange(12)
    row, column = jnp.arange(13.0)[None], jnp.arange(10.0)[:, None]
    for short in (row, column):
        whole = jnp.broadcast_to(short, (10, 13))
        np.testing.assert_array_equal(grid.pixels(short, every), grid.pixels(whole, every))


def test_the_chosen_are_the_candidates_in_order():
    seen = np.random.default_rng(0).random((30, COUNT)) < 0.2
    slots, filled = tile.chosen(jnp.asarray(seen), 4)
    for row, found, there in zip(seen, np.asarray(slots), np.asarray(filled), strict=True):
        np.testing.assert_array_equal(found[there], np.flatnonzero(row)[:4])


@pytest.mark.parametrize("count", [12, 40])
def test_many_waves_on_one_ray_composite_as_few_do(count):
    """Pairs in a loop written out, pairs in a loop, and sorting give one answer, for ties too."""
    assert 8 <= composite._FEW < 12 <= composite._PAIRWISE < 40, "each count runs a program of its own"
    rng = np.random.default_rng(5)
    depth, alpha = rng.integers(1, 6, (3, 8, 10)).astype(np.float32), rng.random((3, 8, 10)).astype(np.float32)
    few = composite.weights(jnp.asarray(depth), jnp.asarray(alpha))
    room = (0, 0), (0, count - 8), (0, 0)
    padded = np.pad(depth, room, constant_values=1e6), np.pad(alpha, room)
    many = composite.weights(jnp.asarray(padded[0]), jnp.asarray(padded[1]))
    np.testing.assert_allclose(many[:, :8], few, rtol=1e-5, atol=1e-7)


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="'shine'"):
        render.surface(scene(0), cameras()["pinhole"], 8, 8, channels=("depth", "shine"))


def test_a_gradient_keeps_no_more_than_the_picture_and_one_chunk():
    """Rays of all chunks at once would be 64 times the 128 KiB of their coordinates."""
    camera, waves = cameras()["pinhole"], jax.tree.map(lambda x: x[:3], scene(5))

    def depth(centre):
        moved = waves.replace(centre=centre)
        return jnp.sum(render.surface(moved, camera, 128, 128, channels=("depth",), rays_per_chunk=256)["depth"])

    memory = jax.jit(jax.grad(depth)).lower(jnp.asarray(waves.centre)).compile().memory_analysis()
    assert 128 * 128 * 4 < memory.temp_size_in_bytes < 2 * 2**20


def test_chunks_change_no_gradient():
    """42 tiles in chunks of 16, the last of which is filled up, in one chunk, and without culling; channels without edges."""
    # Three waves: the time to compile grows with their pairs.
    camera, waves = cameras()["pinhole"], jax.tree.map(lambda x: x[:3], scene(6, scale=(0.3, 0.9), presence=0.7))

    def loss(centre, rays_per_chunk, cull):
        moved = waves.replace(centre=centre)
        names = ("coverage", "base_colour")
        found = render.surface(moved, camera, 27, 23, channels=names, rays_per_chunk=rays_per_chunk, cull=cull, softness=0.01)
        return sum(jnp.sum(found[name] * jnp.cos(jnp.arange(found[name].size).reshape(found[name].shape))) for name in found)

    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    centre = jnp.asarray(waves.centre)
    whole, parts, uncut = gradient(centre, 1024, True), gradient(centre, 256, True), gradient(centre, 256, False)
    assert (np.abs(whole).max(1) > 0.1).all()
    # a ray that grazes a wave may change its order by rounding
    np.testing.assert_allclose(parts, whole, atol=1e-3 * np.abs(whole).max())
    np.testing.assert_allclose(uncut, whole, atol=1e-3 * np.abs(whole).max())


@pytest.mark.parametrize(("tiles", "size", "group"), [(42, 16, 1), (42, 4, 4), (64, 16, 2), (3, 8, 2)])
def test_chunks_hold_every_tile_once(tiles, size, group):
    level = np.random.default_rng(2).integers(0, 4, tiles)
    of_chunk, picks, fresh = (np.asarray(x) for x in tile.chunks(jnp.asarray(level), size, group))
    assert picks.shape == fresh.shape == (-(-tiles // (size * group)), group, size)
    np.testing.assert_array_equal(picks[fresh], np.argsort(level, kind="stable"))
    np.testing.assert_array_equal(of_chunk, level[picks].max(-1))
