"""Compiler options of XLA on the CPU that were measured to help; other platforms do not need them."""

import functools
from pathlib import Path
from typing import Any

import jax

_STEP = {"xla_cpu_use_fusion_emitters": False}
"""Options for every program."""
_ONCE = {"xla_backend_optimization_level": 0}
"""Options for a program that runs once."""


def compiler_options(once: bool = False) -> dict[str, bool | int]:
    """Options for `jax.jit(..., compiler_options=)` of a training step, or of a program that runs `once`; {} unless on a CPU.

    A step of the quickstart's bridge is faster without XLA's newer emitters of fused loops, and compiles sooner (seen with
    jaxlib 0.10.2 on two cores; without _STEP the quickstart shows it). A program that runs once, as the initialisation, takes
    longer to optimise than to run. Options that the installed XLA does not know are left out.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in (_STEP | (_ONCE if once else {})).items() if _known(name, value)}


@functools.cache
def _known(name: str, value: bool | int) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def keep_compilations(workdir: str | Path) -> None:
    """Keeps compiled programs in workdir/jax_cache, so that the next run starts at once; a cache that is set already stays."""
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(Path(workdir) / "jax_cache"))
