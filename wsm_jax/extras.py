"""Imports of packages of the optional extras."""

import importlib
from types import ModuleType


def extra(name: str, bundle: str = "convert") -> ModuleType:
    """The module `name` of the extra `bundle`. Raises ModuleNotFoundError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed; pip install 'wsm_jax[{bundle}]' brings it", name=name) from error
