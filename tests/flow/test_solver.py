"""The samplers of wsm_jax/flow/solver.py: order, exactness, reversibility, and levels by group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.flow import (
    EULER,
    HEUN,
    METHODS,
    MIDPOINT,
    REVERSIBLE,
    advance,
    integrate,
    interpolate,
    invert,
    velocity,
)

ALL = [EULER, HEUN, MIDPOINT, REVERSIBLE]
named = pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
X = np.array([0.7, -1.1])

FLOWS = {  # velocity, and the exact state at level s from X at level 0
    "linear": (lambda x, s: -1.3 * x, lambda s: X * np.exp(-1.3 * s)),
    "rotation": (
        lambda x, s: 2.0 * jnp.stack([-x[..., 1], x[..., 0]], -1),
        lambda s: np.array([X[0] * np.cos(2 * s) - X[1] * np.sin(2 * s), X[0] * np.sin(2 * s) + X[1] * np.cos(2 * s)]),
    ),
    "time dependent": (lambda x, s: (1 + 2 * s[..., None]) * x, lambda s: X * np.exp(s + s**2)),
    "non-linear": (lambda x, s: -(x**2) * jnp.sign(x), lambda s: X / (1 + np.abs(X) * s)),
}
STEPS = np.array([32, 64, 128, 256])


def grids(start, stop):
    """[257 4]: the four grids side by side; the shorter ones stand still after their last step."""
    return start + (stop - start) * np.minimum(np.arange(STEPS.max() + 1)[:, None] / STEPS, 1.0)


def flows(x, s):
    """All flows at once, on a state {flow: [4 2]}."""
    return {name: v(x[name], s) for name, (v, _) in FLOWS.items()}


def at(s):
    """The exact states at level s."""
    return {name: np.tile(exact(s), (len(STEPS), 1)) for name, (_, exact) in FLOWS.items()}


def orders(got, wanted):
    """Measured order by flow: minus the slope of log error against log of the number of steps."""
    errors = {name: np.linalg.norm(got[name] - wanted[name], axis=-1) for name in got}
    return {name: -np.polyfit(np.log(STEPS), np.log(error), 1)[0] for name, error in errors.items()}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@named
@pytest.mark.parametrize(("start", "stop"), [(0.0, 1.0), (1.0, 0.0)], ids=["forward", "backward"])
def test_order_of_convergence(double, method, start, stop):
    measured = orders(integrate(flows, at(start), grids(start, stop), method), at(stop))
    assert all(abs(order - method.order) < 0.1 for order in measured.values()), measured


@pytest.mark.parametrize(("method", "order"), [(EULER, 1), (HEUN, 3), (MIDPOINT, 3)], ids=["euler", "heun", "midpoint"])
def test_forward_then_backward_misses_the_start_by_a_power_of_h(double, method, order):
    """The leading error changes sign with h when the order is even, so that the cycle is one order better than the method."""
    there = integrate(flows, at(0.0), grids(0.0, 1.0), method)
    measured = orders(integrate(flows, there, grids(1.0, 0.0), method), at(0.0))
    assert all(abs(found - order) < 0.15 for found in measured.values()), measured


@named
@pytest.mark.parametrize("grid", [[0.0, 0.13, 0.4, 1.0], [1.0, 0.6, 0.0]], ids=str)
def test_straight_paths_are_exact_on_any_grid(double, method, grid):
    x0 = {"a": np.random.default_rng(0).normal(size=(3, 4)), "b": np.ones(2)}
    x1 = {"a": np.random.default_rng(1).normal(size=(3, 4)), "b": np.zeros(2)}
    got = integrate(lambda x, s: velocity(x0, x1), interpolate(x0, x1, grid[0]), np.array(grid), method)
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-13, atol=1e-14), got, interpolate(x0, x1, grid[-1]))


def network(x, level):
    """A smooth non-linear velocity that couples everything, like a network."""
    w = jnp.sin(jnp.arange(36.0, dtype=x.dtype).reshape(6, 6))
    return jnp.tanh(x @ w + 3 * level.astype(x.dtype)) @ w.T / 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("steps", [4, 40])
def test_reversible_returns_to_its_start(double, dtype, tolerance, steps):
    x = np.random.default_rng(2).normal(size=(5, 6)).astype(dtype)
    grid = np.linspace(0, 1, steps + 1).astype(dtype)
    start = REVERSIBLE.start(network, jnp.asarray(x), jnp.asarray(grid[0]))
    end = advance(network, start, grid, REVERSIBLE)
    assert np.linalg.norm(end.x - x) > 0.3 * np.linalg.norm(x)  # it went somewhere
    back = invert(network, end, grid)
    assert back.x.dtype == dtype
    assert np.linalg.norm(back.x - x) <= tolerance * np.linalg.norm(x)
    assert np.linalg.norm(back.auxiliary - x) <= 10 * tolerance * np.linalg.norm(x)
    if steps == 4:  # Heun does not return, so this can fail
        there = integrate(network, x, grid, HEUN)
        assert np.linalg.norm(integrate(network, there, grid[::-1], HEUN) - x) > 100 * tolerance * np.linalg.norm(x)


@named
def test_declared_evaluations_are_the_true_ones(method):
    calls = []

    def v(x, s):
        calls.append(s)
        return x

    s = jnp.float32(0.0)
    state = method.start(v, jnp.ones(2), s)
    assert len(calls) == method.evaluations_to_start
    method.step(v, state, s, s + 0.5)
    assert len(calls) == method.evaluations_to_start + method.evaluations
    assert METHODS[method.name] is method


@named
def test_a_group_whose_level_stands_still_stays_bitwise(method):
    keys = jax.random.split(jax.random.key(0), 2)
    x = {"text": jax.random.normal(keys[0], (3, 4)), "core": {"a": jax.random.normal(keys[1], (3, 5)), "b": jnp.ones(3)}}
    levels = {"text": jnp.full(9, 0.3), "core": jnp.linspace(0, 1, 9)}

    def moving(x, s):
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan) if leaf.shape == (3, 4) else jnp.sin(leaf) + 1, x)

    end = integrate(moving, x, levels, method)
    np.testing.assert_array_equal(end["text"], x["text"])
    assert np.isfinite(end["core"]["a"]).all()
    assert np.all(end["core"]["a"] != x["core"]["a"])


@named
def test_every_group_moves_by_its_own_levels(double, method):
    """Groups that do not see each other follow their own flows, whatever the others' levels do."""
    v, exact = FLOWS["time dependent"]

    def both(x, s):
        return {name: v(x[name], s[name]) for name in x}

    grid = np.linspace(0, 1, 401)
    levels = {"early": np.minimum(2 * grid, 1.0), "late": np.maximum(2 * grid - 1, 0.0), "half": 0.5 * grid}
    end = integrate(both, dict.fromkeys(levels, X), levels, method)
    for name, level in [("early", 1.0), ("late", 1.0), ("half", 0.5)]:
        np.testing.assert_allclose(end[name], exact(level), rtol=2e-2 if method.order == 1 else 2e-4)


@named
def test_levels_by_sample_and_tick(double, method):
    """A grid [S+1 B K] moves each tick by itself; ticks that stand still are the clean past."""
    v, exact = FLOWS["linear"]
    stop = np.array([[0.0, 0.5, 1.0], [0.0, 0.0, 1.0]])
    grid = np.linspace(0, 1, 201)[:, None, None] * stop
    end = integrate(lambda x, s: v(x, s), np.broadcast_to(X, (2, 3, 2)), grid, method)
    np.testing.assert_allclose(end, np.stack([[exact(s) for s in row] for row in stop]), rtol=1e-2)
    np.testing.assert_array_equal(end[0, 0], X)


def test_reversible_returns_through_a_walk_of_groups(double):
    x = {"core": np.random.default_rng(3).normal(size=(2, 6)), "style": np.random.default_rng(4).normal(size=(2, 6))}

    def v(x, s):
        mix = network(x["core"] + 0.5 * x["style"], s["core"] + s["style"])
        return {"core": mix, "style": jnp.cos(mix)}

    grid = jnp.linspace(0.0, 2.0, 13)
    levels = {"core": jnp.minimum(grid, 1.0), "style": jnp.maximum(grid - 1.0, 0.0)}  # one edge of the cube, then another
    x = jax.tree.map(jnp.asarray, x)
    end = advance(v, REVERSIBLE.start(v, x, jax.tree.map(lambda g: g[0], levels)), levels, REVERSIBLE)
    back = invert(v, end, levels).x
    for name in x:
        assert np.linalg.norm(back[name] - x[name]) <= 1e-12 * np.linalg.norm(x[name])


@named
def test_sampling_is_differentiable_and_compiles_under_jit(double, method):
    grid = np.linspace(0, 1, 9)
    run = jax.jit(lambda rate: jnp.sum(integrate(lambda x, s: rate * x, X, grid, method)))
    numeric = (run(1.0 + 1e-6) - run(1.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(run)(1.0), numeric, rtol=1e-7)


@named
def test_bfloat16_states_keep_their_type(method):
    x = jnp.ones((2, 6), jnp.bfloat16)
    assert integrate(network, x, np.linspace(0, 1, 3, dtype=np.float32), method).dtype == jnp.bfloat16


def test_bad_grids_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        integrate(lambda x, s: x, X, np.zeros(1))
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        integrate(lambda x, s: x, {"a": X, "b": X}, {"a": np.zeros(3), "b": np.zeros(4)})
    with pytest.raises(ValueError, match=r"\(5,\).*\(2,\)"):
        integrate(lambda x, s: x, X, np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"key"):
        integrate(lambda x, s: x, {"a": X, "b": X}, {"a": np.zeros(3)})
