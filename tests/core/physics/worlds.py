"""Small worlds for the tests of physics: a floor in slot 0, objects from slot 1 on, always four slots (one compilation)."""

from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.waves import empty

G = 9.81
SLOTS = 4


def world(*objects: dict, floor: bool = True) -> Waves:
    """A world of the given objects (fields of `Waves`), each an instance of its own."""
    waves = empty(SLOTS)
    if floor:
        waves.presence[0], waves.scale[0], waves.exponents[0], waves.semantic[0] = 1.0, (6, 6, 0.25), 0.1, 1
        waves.centre[0] = (0, 0, -0.25)
    for slot, fields in enumerate(objects, 1):
        waves.presence[slot], waves.instance[slot], waves.semantic[slot] = 1.0, slot + 1, 7
        for name, value in fields.items():
            getattr(waves, name)[slot] = value
    return waves


def thing(**fields) -> dict:
    """Fields of one wave."""
    return fields


def ball(centre, radius=0.2, **fields) -> dict:
    return {"centre": centre, "scale": radius, **fields}


def box(centre, scale, **fields) -> dict:
    return {"centre": centre, "scale": scale, "exponents": 0.1, **fields}
