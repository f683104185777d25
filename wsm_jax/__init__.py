"""World Snapshot Models in JAX. The names below are loaded when they are first used, so that importing this costs nothing."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsm_jax.snapshot import WSF, WSG, WSV, Camera, Waves, look_at, orbit
    from wsm_jax.world import World, load

__all__ = ["WSF", "WSG", "WSV", "Camera", "Waves", "World", "load", "look_at", "orbit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'wsm_jax' has no attribute {name!r}; it has {', '.join(__all__)}, and its subpackages")
    value = getattr(import_module("wsm_jax.world" if name in ("World", "load") else "wsm_jax.snapshot"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
