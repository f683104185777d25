"""A package of an extra is imported where it is needed, or the error says how to install it."""

import json

import pytest

from wsm_jax.extras import extra


def test_the_module_is_returned():
    assert extra("json", "view") is json


def test_a_missing_package_names_its_extra():
    with pytest.raises(ModuleNotFoundError, match=r"no_such_package is not installed; pip install 'wsm_jax\[view\]'") as error:
        extra("no_such_package", "view")
    assert error.value.name == "no_such_package"
