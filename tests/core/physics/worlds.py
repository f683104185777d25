"""Small worlds for the tests of physics: a floor in slot 0, objects from slot 1 on, always four slots (one compilation)."""

from launch.bench.physics import SLOTS, G, world

__all__ = ["SLOTS", "G", "ball", "box", "thing", "world"]


def thing(**fields) -> dict:
    """Fields of one wave."""
    return fields


def ball(centre, radius=0.2, **fields) -> dict:
    return {"centre": centre, "scale": radius, **fields}


def box(centre, scale, **fields) -> dict:
    return {"centre": centre, "scale": scale, "exponents": 0.1, **fields}
