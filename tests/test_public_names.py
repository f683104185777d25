"""`import wsm_jax` is the whole public face, and costs nothing until a name is used."""

import subprocess
import sys

import pytest

import wsm_jax
from wsm_jax import snapshot, world


@pytest.mark.parametrize("name", wsm_jax.__all__)
def test_name_is_the_one_of_its_package(name):
    assert getattr(wsm_jax, name) is getattr(world if name in ("World", "load") else snapshot, name)
    assert name in dir(wsm_jax)


def test_the_design_is_public():
    assert set(wsm_jax.__all__) == {"World", "Waves", "Camera", "WSG", "WSV", "WSF", "orbit", "look_at", "load"}


def test_unknown_name_is_an_attribute_error_that_lists_the_names():
    with pytest.raises(AttributeError, match=r"'Wolrd'.*World"):
        _ = wsm_jax.Wolrd  # type: ignore[attr-defined]


def test_import_alone_loads_no_jax():
    code = "import sys, wsm_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules; assert 'World' in dir(wsm_jax)"
    subprocess.run([sys.executable, "-c", code], check=True)
