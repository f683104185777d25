"""Statistics merged from parts are those of the whole."""

import json

import numpy as np

from data_pipelines.wsv.moments import Moments


def test_moments_do_not_lose_a_small_spread_on_a_large_mean():
    x = 1e6 + np.random.default_rng(0).normal(size=(1000, 2))
    whole, parts = Moments(2), Moments(2)
    whole.add(x)
    for piece in (x[:1], x[1:500], x[500:500], x[500:]):
        moments = Moments(2)
        moments.add(piece)
        parts.merge(json.loads(json.dumps(moments.record())))
    for key in ("mean", "std", "min", "max"):
        np.testing.assert_allclose(parts.summary()[key], whole.summary()[key], rtol=1e-9)
    np.testing.assert_allclose(parts.summary()["std"], x.std(0), rtol=1e-9)
    assert Moments(2).summary()["mean"] == []
