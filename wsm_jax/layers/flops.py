"""Model FLOPs, counted in the program itself, so that they hold for any network."""

import math
from collections.abc import Callable
from typing import Any

import jax

BACKWARD = 2
"""FLOPs of the backward pass over those of the forward pass: a matrix product has two gradients, each of its own cost."""


def matmul_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of all matrix products and convolutions of `function(*arguments)`, which may be abstract; nothing is computed.

    A product of [m k] and [k n] counts 2 m n k. Bodies of scans count once an iteration, of loops of unknown length once, of
    conditions the dearest branch. Elementwise work is left out, as in the model FLOPs of the literature (PaLM, appendix B).
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def training_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of a training step whose loss is `function`: forward and backward, nothing recomputed."""
    return (1 + BACKWARD) * matmul_flops(function, *arguments)


def _count(jaxpr: Any) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // features
    inner = [_count(part) for part in _bodies(params)]
    if name == "cond":
        return max(inner, default=0)
    return sum(inner) * (params["length"] if name == "scan" else 1)


def _bodies(params: dict[str, Any]) -> list[Any]:
    """Programs inside an equation: of jit, scan, remat, custom derivatives and so on."""
    values = [one for value in params.values() for one in (value if isinstance(value, list | tuple) else [value])]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(value, "jaxpr") or hasattr(value, "eqns")]
