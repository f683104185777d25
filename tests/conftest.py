"""Shapes are executed (jaxtyping with beartype), eight CPU devices stand in for a pod, compilations are cached."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook(["wsm_jax", "data_pipelines"], "beartype.beartype")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real recordings beside the project; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder ../shared/data with real recordings beside the project")
    return SHARED
