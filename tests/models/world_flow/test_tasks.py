"""A task walks an edge of the cube: what is given stays bit for bit, what is sampled arrives, what is unknown stays noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.flow import EULER, HEUN, integrate
from wsm_jax.models.world_flow import tasks as flow
from wsm_jax.models.world_flow.state import GROUPS

SHAPES = {"text": (2, 3, 4), "core": (2, 8, 3, 5), "style": (2, 4, 2)}


def _state(seed):
    return {
        name: jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), s) for i, (name, s) in enumerate(SHAPES.items())
    }


@pytest.mark.parametrize("task", flow.TASKS.values(), ids=lambda task: task.name)
def test_edges(task):
    state, data = _state(0), _state(1)
    part = jnp.broadcast_to(flow.random_part(jax.random.key(2), task.part, 8, 3, 2), (2, 8, 3))
    start = flow.start_levels(task, part, 3, 4)
    end = flow.end_levels(task, start)
    velocity = flow.along(lambda x, level: data, start, end, 0.02)
    for method, steps in ((EULER, 1), (EULER, 5), (HEUN, 3)):
        out = integrate(velocity, state, jnp.linspace(0.0, 1.0, steps + 1), method)
        for name in GROUPS:
            moves = np.asarray(end[name] > start[name])
            np.testing.assert_array_equal(np.asarray(out[name])[~moves], np.asarray(state[name])[~moves])
            if method is EULER:
                np.testing.assert_allclose(np.asarray(out[name])[moves], np.asarray(data[name])[moves], atol=1e-4)
    roles = {"text": task.text, "style": task.style}
    for name, role in roles.items():
        assert np.all(start[name] == (1.0 if role == flow.GIVEN else 0.0))
        assert np.all(end[name] == (0.0 if role == flow.UNKNOWN else 1.0))


def test_the_predictor_sees_the_levels_of_the_path():
    seen = []

    def predict(x, level):
        seen.append(float(level["core"][0, 0, 0]))
        return x

    task = flow.TASKS["imagine"]
    start = flow.start_levels(task, jnp.ones((2, 8, 3), bool), 3, 4)
    velocity = flow.along(predict, start, flow.end_levels(task, start), 0.02)
    for progress in (0.0, 0.25, 1.0):
        velocity(_state(0), jnp.asarray(progress))
    assert seen == [0.0, 0.25, 1.0]


@pytest.mark.parametrize("part", ["future", "past", "middle", "waves"])
def test_parts_cut_at_whole_tokens(part):
    for seed in range(20):
        chosen = np.asarray(flow.random_part(jax.random.key(seed), part, 8, 3, 2))
        if part == "waves":
            assert np.all(chosen == chosen[:1])
        else:
            assert np.all(chosen == chosen[:, :1])
            np.testing.assert_array_equal(chosen[0::2], chosen[1::2])
    assert np.all(flow.random_part(jax.random.key(0), "all", 8, 3, 2))
