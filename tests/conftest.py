"""Shapes are executed (jaxtyping with beartype), eight CPU devices stand in for a pod, compilations are cached."""

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of a test goes to compiling what runs once: LLVM does not optimise, and gets its loops from the older
# emitter, which compiles the step of physics in half the time, in one piece, because each piece has a price and other tests
# use the other cores; XLA's own passes stay as they are. A later jaxlib may lack such a flag, and ends the process at a flag
# that it does not know.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_backend_optimization_level=0"]
    + ["--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"] * version("jaxlib").startswith("0.10.")
)
# In the environment, for the processes that tests start, too.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import numpy as np
import psutil
import pytest
from jaxtyping import install_import_hook

install_import_hook(["wsm_jax", "data_pipelines"], "beartype.beartype")

jax.config.update("jax_num_cpu_devices", 8)

MEMORY_BYTES = 2 * 2**30
"""Resident memory of a test process above which it frees its compiled programs; else a worker grows to 7 GB."""


def pytest_collection_finish() -> None:
    """Exclude what was imported from garbage collections: they would visit it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """Free the compiled programs after a module of tests, if there are many; what is needed again is on disk."""
    yield
    if psutil.Process().memory_info().rss > MEMORY_BYTES:
        jax.clear_caches()
        gc.collect()
        with suppress(AttributeError, OSError, TypeError):  # another C library keeps its free memory, or not, by itself
            ctypes.CDLL(None).malloc_trim(0)


BRIDGE, WORLD = "stages.bridge", "stages.world"
TINY_WAVES = 4
TINY = {
    f"{BRIDGE}.objective.size": (16, 16), f"{BRIDGE}.data.height": 16, f"{BRIDGE}.data.width": 16,
    "sampler.bridge.size": (16, 16), f"{BRIDGE}.evaluators": {}, f"{WORLD}.evaluators": {},
    f"{BRIDGE}.objective.bridge.rows": 4, f"{BRIDGE}.objective.bridge.patch": 4, f"{BRIDGE}.objective.bridge.width": 16,
    f"{BRIDGE}.objective.bridge.depth": 1, f"{BRIDGE}.objective.bridge.heads": 2, f"{BRIDGE}.objective.bridge.pixel_width": 8,
    f"{BRIDGE}.objective.bridge.frequencies": (1.0, 2.0), f"{BRIDGE}.objective.style.frequencies": (1.0, 2.0),
    f"{BRIDGE}.objective.style.width": 8, f"{BRIDGE}.batch_size": 8, f"{BRIDGE}.steps": 2,
    f"{BRIDGE}.optimizer.warmup": 1, f"{WORLD}.optimizer.warmup": 1,
    f"{WORLD}.objective.model.layout.ticks": 8, f"{WORLD}.data.ticks": 8, f"{WORLD}.objective.model.layout.tick_patch": 4,
    f"{WORLD}.objective.model.layout.text.length": 16, f"{WORLD}.objective.model.layout.text_code": 8,
    f"{WORLD}.objective.model.width": 16, f"{WORLD}.objective.model.depth": 1, f"{WORLD}.objective.model.heads": 2,
    f"{WORLD}.batch_size": 8, f"{WORLD}.steps": 2,
    "sampler.bridge.steps": 1, "sampler.flow.steps": 2,
}  # fmt: skip
"""What makes a tiny experiment of experiments/quickstart.py."""
FEWER_WAVES = {
    f"{BRIDGE}.objective.bridge.layout.waves": TINY_WAVES, f"{WORLD}.objective.model.layout.waves": TINY_WAVES,
    f"{BRIDGE}.data.waves": TINY_WAVES, f"{WORLD}.data.waves": TINY_WAVES,
    f"{WORLD}.data.latents": (("style", "bridge", (TINY_WAVES + 1, 8)),),
}  # fmt: skip
"""What gives it four slots."""

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real recordings beside the project; skips the test where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder ../shared/data with real recordings beside the project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_workdir(tmp_path_factory) -> Path:
    """A workdir with an untrained, tiny world: weights are random, so that every input matters. Copy it before changing it."""
    from flax.linen import meta

    from wsm_jax.config import load
    from wsm_jax.runtime.checkpoint import EMA, Checkpoints
    from wsm_jax.training.experiment import open_experiment, stored

    config = load(Path(__file__).parents[1] / "experiments" / "quickstart.py", TINY | FEWER_WAVES)
    workdir = tmp_path_factory.mktemp("tiny")
    for name, stage in open_experiment(config).stages.items():
        shapes = jax.eval_shape(lambda key, objective=stage.objective: meta.unbox(objective.init(key)), jax.random.key(0))
        rng = np.random.default_rng(len(name))
        params = jax.tree.map(lambda leaf, rng=rng: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes)
        checkpoints = Checkpoints(workdir / name, stored(config, name), keep=1)
        checkpoints.save(1, {"train": {"step": np.int32(1), "params": params}, EMA: params}, None)
        checkpoints.close()
    return workdir
