"""Compiler options are those that the installed XLA knows, and change no result."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.runtime import compiler


def test_options_are_known_or_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "_STEP", {"xla_no_such_option": True})
    assert compiler.compiler_options() == {}
    assert compiler.compiler_options(once=True) == {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compiler.compiler_options(once=True) == {}


def test_results_are_the_same():
    def f(x):
        return jax.grad(lambda y: jnp.sum(jnp.tanh(y @ y) * jnp.sin(y)))(x)

    x = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    for once in (False, True):
        options = compiler.compiler_options(once)
        assert options or not once, "XLA on this CPU knows none of the options"  # later ones have one emitter for all
        np.testing.assert_allclose(jax.jit(f, compiler_options=options)(x), jax.jit(f)(x), rtol=1e-5, atol=1e-5)
