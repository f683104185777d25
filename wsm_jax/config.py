"""Experiment configs: the schema is the dataclass.

    node(cls, **fields)        ConfigDict {"class": "module:Name", every field of cls}, checked on the line that writes it
    override(config, key, x)   set a dotted key that exists, typed by the class: what --config.KEY=VALUE does
    build(config)              the objects, inner nodes first; a node that is used twice becomes one object
    to_json, from_json         plain JSON data and back

A stored config states every field, so a changed default never changes an old checkpoint. Only dataclasses and Linen modules of
the packages in ROOTS, or of a package that the caller trusts, are built: a config of a stranger cannot run other code.
"""

import collections.abc
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict, FieldReference

Config = Any
"""An `ml_collections.ConfigDict`, whose attributes no static checker can know."""

CLASS = "class"
"""Reserved key of a node."""
ROOTS = ("wsm_jax", "data_pipelines")
"""Packages whose classes a stored config may name."""
MOVED: dict[str, str] = {}
"""Old "module:Name" -> new one: a row for each class that was renamed after a release."""
_SCALARS = (bool, int, float, str)


BOUND_LATER = {"config": False}
"""Metadata of a dataclass field that is no part of a config, as weights: field(default=None, metadata=BOUND_LATER)."""


def node(target: Callable[..., Any], /, **fields: Any) -> Config:
    """The config of `target(**fields)`; fields that are not given take the default of the class.

    Raises KeyError for an unknown field (it names the nearest) and a missing one, ValueError for a value of another type.
    """
    path = f"{target.__module__}:{target.__qualname__}"
    if not dataclasses.is_dataclass(target):
        raise ValueError(f"{path}: needed a dataclass or a Linen module")
    known = _parameters(target)
    for name in fields:
        if name not in known:
            raise KeyError(_unknown(f"{path}.{name}", name, known))
    out: dict[str, Any] = {CLASS: path}
    for name, (annotation, default) in known.items():
        if name not in fields and default is dataclasses.MISSING:
            raise KeyError(f"{path}: field {name!r} is missing")
        value = _floats(as_config(fields.get(name, default)), annotation)
        _check(value, annotation, f"{path}.{name}")
        out[name] = value
    return ConfigDict(out)


def require(owner: Any, least: float | int, *names: str) -> None:
    """Raises ValueError for a field of a dataclass below `least`; call it in `__post_init__`."""
    for name in names:
        if not getattr(owner, name) >= least:
            raise ValueError(f"{name} = {getattr(owner, name)}: needed at least {least}")


def as_config(value: Any) -> Any:
    """The config of a value: dataclass instances become nodes, lists become tuples, mappings ConfigDicts."""
    if isinstance(value, ConfigDict | FieldReference):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return node(type(value), **{name: getattr(value, name) for name in _parameters(type(value))})
    if isinstance(value, Mapping):
        return ConfigDict({name: as_config(inner) for name, inner in value.items()})
    return tuple(map(as_config, value)) if isinstance(value, list | tuple) else value


def build(config: Any, trust: Sequence[str] = ()) -> Any:
    """The object that a config describes.

    Raises ValueError, naming the key, for a class outside ROOTS and `trust`, and for values that the class refuses.
    """
    return _build(config, tuple(trust), "", {})


def _build(value: Any, trust: tuple[str, ...], key: str, made: dict[int, Any]) -> Any:
    value = value.get() if isinstance(value, FieldReference) else value
    if isinstance(value, ConfigDict | Mapping):
        if id(value) in made:
            return made[id(value)]
        inner = {name: _build(value[name], trust, f"{key}.{name}".lstrip("."), made) for name in value if name != CLASS}
        made[id(value)] = _construct(str(value[CLASS]), inner, trust, key) if CLASS in value else inner
        return made[id(value)]
    if isinstance(value, list | tuple):
        return tuple(_build(one, trust, f"{key}.{i}".lstrip("."), made) for i, one in enumerate(value))
    return value


def _construct(path: str, fields: dict[str, Any], trust: tuple[str, ...], key: str) -> Any:
    target = _target(path, trust)
    try:
        return target(**fields)
    except (ValueError, KeyError) as error:
        message = error.args[0] if error.args else error
        raise type(error)(f"config {key or target.__name__}: {message}") from error


def override(config: Config, key: str, value: Any) -> None:
    """Sets a dotted key that exists, as "stages.bridge.steps"; elements of tuples are numbers.

    A mapping, as "stages.bridge.evaluators", may be replaced as a whole, and a node that may be None taken out.
    Raises KeyError for an unknown key (it names the nearest) or a section, ValueError for a value of another type.
    """
    *path, last = key.split(".")
    at, parents = config, []
    for name in (*path, last):
        parents.append(at)
        at = _child(at, name, key)
    annotation = _annotation(config, key)
    value = _floats(as_config(value), annotation)
    if isinstance(at, ConfigDict) and not ((value is None or isinstance(value, ConfigDict)) and _fits(value, annotation)):
        raise KeyError(f"config key {key!r} is a section; set one of {[name for name in at if name != CLASS]} in it")
    _check(value, annotation, key)
    _replace(parents, key.split("."), value)


def _child(at: Any, name: str, key: str) -> Any:
    if isinstance(at, tuple | list) and name.isdecimal() and int(name) < len(at):
        return at[int(name)]
    keys = [one for one in at if one != CLASS] if isinstance(at, ConfigDict) else list(map(str, range(_length(at))))
    if not isinstance(at, ConfigDict) or name not in keys:
        raise KeyError(_unknown(key, name, keys))
    return at[name]


def _length(value: Any) -> int:
    return len(value) if isinstance(value, tuple | list) else 0


def _replace(parents: list[Any], names: list[str], value: Any) -> None:
    """Sets the last name in the innermost ConfigDict; tuples on the way are made anew."""
    for parent, name in zip(reversed(parents), reversed(names), strict=True):
        if isinstance(parent, ConfigDict):
            with parent.ignore_type():
                parent[name] = value
            return
        value = tuple(value if i == int(name) else one for i, one in enumerate(parent))


def _annotation(config: Config, key: str) -> Any:
    """The declared type of the value at a dotted key; Any where no class declares one."""
    at: Any = config
    annotation: Any = Any
    for name in key.split("."):
        annotation = _parameters(node_class(at))[name][0] if is_node(at) else _element(annotation)
        at = at[int(name)] if isinstance(at, tuple | list) else at[name]
    return annotation


def _element(annotation: Any) -> Any:
    """The type of the elements of a mapping or tuple type."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return arguments[-1] if typing.get_origin(annotation) in (dict, collections.abc.Mapping) else Any


def to_json(config: Any) -> Any:
    """JSON data of a config: dicts, lists and scalars."""
    value = config.get() if isinstance(config, FieldReference) else config
    if isinstance(value, ConfigDict | Mapping):
        return {name: to_json(value[name]) for name in value}
    return list(map(to_json, value)) if isinstance(value, list | tuple) else value


def from_json(data: Any, trust: Sequence[str] = ()) -> Config:
    """The config of JSON data, checked again by the classes of today.

    A field that a class has gained since takes its default; a field that it has lost, and whatever `node` refuses, raises
    KeyError or ValueError.
    """
    if isinstance(data, Mapping):
        inner = {name: from_json(value, trust) for name, value in data.items() if name != CLASS}
        return node(_target(data[CLASS], trust), **inner) if CLASS in data else ConfigDict(inner)
    return tuple(from_json(one, trust) for one in data) if isinstance(data, list | tuple) else data


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The config that an experiment file's `get_config()` returns, with overrides of dotted keys.

    Raises FileNotFoundError for a missing file, ValueError for a file without get_config, and what `override` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such experiment file")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: no Python file; needed one that defines get_config(), as experiments/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path}: it defines no get_config(); needed one that returns node(Experiment, ...)")
    config = module.get_config()
    for key, value in (overrides or {}).items():
        override(config, key, value)
    return config


def is_node(value: Any) -> bool:
    """True for the config of an object."""
    return isinstance(value, ConfigDict) and CLASS in value


def node_class(config: Config) -> Any:
    """The class that a node names. Raises ValueError where there is none; its package is trusted, for the node was made."""
    path = str(config[CLASS])
    return _target(path, (path.partition(":")[0].partition(".")[0],))


def packages(config: Any) -> tuple[str, ...]:
    """Top-level packages of all classes that a config names: what a file of the user's own is trusted with."""
    if isinstance(config, FieldReference):
        config = config.get()
    if isinstance(config, ConfigDict):
        own = {str(config[CLASS]).partition(":")[0].partition(".")[0]} if CLASS in config else set()
        return tuple(sorted(own.union(*(packages(config[name]) for name in config if name != CLASS))))
    if isinstance(config, list | tuple):
        return tuple(sorted(set().union(*map(packages, config))))
    return ()


def _target(path: str, trust: Sequence[str] = ()) -> Any:
    """The class of "module:Name". Raises ValueError for what is not trusted, not there or no dataclass."""
    path = MOVED.get(path, path)
    module, _, name = path.partition(":")
    if module.partition(".")[0] not in (*ROOTS, *trust):
        raise ValueError(f"config names {path}; only {', '.join((*ROOTS, *trust))} are trusted; --trust adds a package")
    try:
        out = importlib.import_module(module)
        for part in name.split("."):
            out = getattr(out, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"config names {path}: {error}; a renamed class needs a row in wsm_jax.config.MOVED") from error
    if not (isinstance(out, type) and dataclasses.is_dataclass(out) and out.__module__ == module):
        raise ValueError(f"config names {path}: needed a dataclass or a Linen module that is defined there")
    return out


def _parameters(target: Any) -> dict[str, tuple[Any, Any]]:
    """Name -> (annotation, default) of the fields of a dataclass that belong to a config."""
    skip = ("parent", "name") if issubclass(target, nn.Module) else ()
    out = {}
    for field in dataclasses.fields(target):
        if not field.init or field.name in skip or not field.metadata.get("config", True):
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        out[field.name] = (field.type, default)
    return out


def _floats(value: Any, annotation: Any) -> Any:
    """The value with whole numbers as floats where floats are declared."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if type(value) is int and (annotation is float or (float in arguments and int not in arguments)):
        return float(value)
    if origin is tuple and isinstance(value, tuple):
        each = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        return tuple(map(_floats, value, each)) if len(each) == len(value) else value
    if origin in (dict, collections.abc.Mapping) and isinstance(value, ConfigDict) and CLASS not in value:
        return ConfigDict({name: _floats(value[name], arguments[1]) for name in value})
    return value


def _check(value: Any, annotation: Any, key: str) -> None:
    """Raises ValueError where a value cannot be of the annotated type."""
    if not _finite(value):
        raise ValueError(f"config key {key!r}: got {value}, needed finite numbers")
    if not _fits(value, annotation):
        got = value[CLASS] if is_node(value) else f"{value!r} ({type(value).__name__})"
        raise ValueError(f"config key {key!r}: got {got}, needed {_words(annotation)}")


def _finite(value: Any) -> bool:
    """False for a number that is not finite, also in a tuple."""
    return all(map(_finite, value)) if isinstance(value, tuple) else not isinstance(value, float) or math.isfinite(value)


def _fits(value: Any, annotation: Any) -> bool:
    value = value.get() if isinstance(value, FieldReference) else value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in arguments)
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if annotation in _SCALARS:
        return type(value) is annotation or (annotation is float and type(value) is int)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return all(_fits(one, arguments[0]) for one in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, ConfigDict) and CLASS not in value and all(_fits(value[n], arguments[1]) for n in value)
    if isinstance(annotation, type) and origin is None:
        return _fits_class(value, annotation)
    return True


def _fits_class(value: Any, annotation: Any) -> bool:
    """True for a node of the class, or of any class where the annotation is a protocol; scalars fit no class."""
    if not is_node(value):
        return not isinstance(value, (*_SCALARS, tuple, type(None)))
    if getattr(annotation, "_is_protocol", False) or not dataclasses.is_dataclass(annotation):
        return True
    return issubclass(node_class(value), typing.cast(type, annotation))


def _words(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) and not typing.get_args(annotation) else str(annotation)


def _unknown(key: str, name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"unknown config key {key!r}" + (f"; the nearest is {near[0]!r}" if near else f"; the keys here are {sorted(known)}")
