"""Counted FLOPs are those of the formulas, whatever the program is wrapped in."""

import jax
import jax.numpy as jnp
import pytest

from wsm_jax.layers.flops import matmul_flops, training_flops
from wsm_jax.layers.transformer import Transformer

M, K, N = 3, 5, 7
A, B = jax.ShapeDtypeStruct((M, K), jnp.float32), jax.ShapeDtypeStruct((K, N), jnp.float32)
ONE = 2 * M * K * N


def product(a, b):
    return a @ b


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint, lambda f: lambda a, b: jax.nn.relu(f(a, b)) + 1.0])
def test_a_product_counts_two_m_k_n(wrap):
    assert matmul_flops(wrap(product), A, B) == ONE


def test_bodies_of_scans_count_once_an_iteration():
    def repeated(a, b):
        return jax.lax.scan(lambda total, _: (total + a @ b, None), jnp.zeros((M, N)), length=11)[0]

    assert matmul_flops(repeated, A, B) == 11 * ONE


def test_a_condition_counts_its_dearest_branch():
    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: (a @ b) + (a @ b))

    assert matmul_flops(either, A, B) == 2 * ONE


def test_a_convolution_counts_its_kernel_at_every_output():
    image, kernel = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 4), jnp.float32)

    def convolve(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert matmul_flops(convolve, image, kernel) == 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)


def test_batches_multiply_and_the_backward_pass_is_twice_the_forward():
    many = jax.ShapeDtypeStruct((4, M, K), jnp.float32)
    assert matmul_flops(product, many, B) == 4 * ONE
    assert training_flops(product, A, B) == 3 * ONE


def test_a_transformer_s_flops_are_those_of_its_parameters_and_its_attention():
    """2 FLOPs a weight and token, 4 L^2 D a block for attention; the condition is one vector for all tokens."""
    width, depth, tokens = 24, 2, 10
    network = Transformer(width, depth, heads=2)
    shapes = [jax.ShapeDtypeStruct((1, n, w), jnp.float32) for n, w in ((tokens, width), (tokens, 3), (1, width))]
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), *(jnp.zeros(s.shape) for s in shapes)))
    hidden = 8 * (width // 3)
    block = tokens * (4 * width**2 + 3 * width * hidden) * 2 + 4 * tokens**2 * width
    assert matmul_flops(network.apply, params, *shapes) == depth * block + 2 * width * 6 * width
