"""Checkpoints of a training: everything that is needed to resume it bit for bit, on any mesh.

    workdir/config.json             the resolved config; the workdir belongs to that experiment
    workdir/checkpoints/<step>/     one Orbax checkpoint after `step` updates: every named tree (`ema` apart, so that
                                    inference reads nothing else), and `meta`: data state, config, code version

A checkpoint is written in the background and appears complete or not at all; older ones are deleted only after that.
"""

import base64
import functools
import json
import shutil
import subprocess
import zlib
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from wsm_jax.files import write_file
from wsm_jax.runtime.fingerprint import fingerprint
from wsm_jax.typing import PyTree

CONFIG_FILE = "config.json"
EMA = "ema"
"""Name of the tree that `restore_params` reads."""

MIN_SLICE_BYTES = 2**24
"""Smallest part of an array, in bytes, that a replica writes: below it one replica writes the whole array.

Every slice of another shape is a program to compile: with Orbax's default, the first save of a small network on 8 CPU devices
takes 23 s of compilation.
"""

GIT_SECONDS = 10
"""Longest wait for the git command that names the commit, in seconds."""

_READ_ERRORS = (ValueError, KeyError, TypeError, OSError, RuntimeError)


def code_version() -> str:
    """Version of the package, followed by the commit if it runs from a git checkout."""
    version = metadata.version("wsm_jax")
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return version
    return f"{version}+{result.stdout.strip()}" if result.returncode == 0 else version


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Config that a workdir was started with. Raises FileNotFoundError or ValueError, naming the path."""
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed the workdir of a training (made by launch.train)")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore it from the checkpoint's meta or start a new workdir") from error


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(config, dict) and config:
        return {k: v for name, value in config.items() for k, v in _flat(value, f"{prefix}{name}.").items()}
    return {prefix[:-1]: config}


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any], may_differ: Collection[str] = ()) -> list[str]:
    """One line for each dotted key whose value differs, except keys (and children of keys) in `may_differ`."""
    a, b = _flat(dict(old)), _flat(dict(new))
    lines = []
    for key in sorted(a.keys() | b.keys()):
        free = any(key == name or key.startswith(name + ".") for name in may_differ)
        if not free and (key not in a or key not in b or a[key] != b[key]):
            was, now = (json.dumps(x[key]) if key in x else "absent" for x in (a, b))
            lines.append(f"{key}: there {was}, here {now}")
    return lines


@functools.cache
def _register_arrays() -> None:
    """Register Orbax's array handler with MIN_SLICE_BYTES, once a process."""
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=MIN_SLICE_BYTES)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # Orbax warns that a handler is replaced, which is intended
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)
    logging.set_verbosity(verbosity)


def check_owner(workdir: str | Path, config: Mapping[str, Any], may_differ: Collection[str] = ()) -> None:
    """Check that a workdir was started with this config. Raises ValueError, listing the keys that differ."""
    workdir = Path(workdir).resolve()
    if (workdir / CONFIG_FILE).exists():
        differences = config_differences(read_config(workdir), json.loads(json.dumps(dict(config))), may_differ)
        if differences:
            raise ValueError(
                f"{workdir}: this workdir belongs to another experiment:\n  "
                + "\n  ".join(differences)
                + "\nTake a new workdir, or the config that this one was started with"
            )
    elif (workdir / "checkpoints").exists():
        raise ValueError(f"{workdir}: has checkpoints but no {CONFIG_FILE}; put it back, or take a new workdir")


class Checkpoints:
    """Checkpoints of one workdir, opened by the experiment that it belongs to; the newest `keep` stay on disk.

    A new workdir gets `config.json`. Raises ValueError, listing the keys that differ, when it belongs to another experiment,
    and for an URL.
    """

    def __init__(self, workdir: str | Path, config: Mapping[str, Any], *, keep: int, may_differ: Collection[str] = ()) -> None:
        if "://" in str(workdir):
            raise ValueError(f"workdir {workdir}: needed a path of a mounted file system; mount the bucket and give its path")
        self.workdir = Path(workdir).resolve()
        self.config: dict[str, Any] = json.loads(json.dumps(dict(config)))
        self.path = self.workdir / "checkpoints"
        check_owner(self.workdir, self.config, may_differ)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("every host has compared the config before one writes it")
        if jax.process_index() == 0:
            self.workdir.mkdir(parents=True, exist_ok=True)
            write_file(self.workdir / CONFIG_FILE, json.dumps(self.config, indent=2, sort_keys=True) + "\n")
        self._version = code_version()
        _register_arrays()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self.path, options=options)

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def reached_preemption(self, step: int) -> bool:
        """True if the cluster has told any host of this job to stop; all hosts get the same answer."""
        return self._manager.reached_preemption(step)

    def save(self, step: int, trees: Mapping[str, PyTree], data_state: Any) -> None:
        """Start to write the named trees after `step` updates; return once the arrays may be overwritten (donated).

        Raises OSError when the disk has no room, also for the save before this one.
        """
        self.check_room(trees)
        meta = _sealed(
            {
                "data": _plain(data_state),
                "config": self.config,
                "version": self._version,
                "fingerprints": fingerprint(dict(trees)),
            }
        )
        items: dict[str, Any] = {name: ocp.args.PyTreeSave(tree) for name, tree in trees.items()}
        self._guard(
            step, lambda: self._manager.save(step, args=ocp.args.Composite(meta=ocp.args.JsonSave(meta), **items), force=True)
        )

    def wait(self) -> None:
        """Wait until all saved checkpoints are on disk. Raises OSError when one could not be written."""
        self._guard(None, self._manager.wait_until_finished)

    def check_room(self, trees: Mapping[str, PyTree]) -> None:
        """Check that the disk has room for the trees. Raises OSError with the numbers."""
        need = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(dict(trees)))
        free = shutil.disk_usage(self.workdir).free
        if free < need:
            raise OSError(
                f"{self.path}: the disk has {free / 2**20:.1f} MiB left, a checkpoint needs {need / 2**20:.1f} MiB; "
                f"free some space and run the same command again, it goes on from step {self.latest()}"
            )

    def _guard(self, step: int | None, action: Any) -> None:
        try:
            action()
        except Exception as error:
            which = "a checkpoint" if step is None else f"the checkpoint of step {step} or the one before"
            reason = _reason(error)
            raise OSError(
                f"{self.path}: {which} could not be written ({reason}); earlier ones are whole. "
                "See that the disk has room and may be written, then run the same command again"
            ) from error

    def restore(
        self, abstract: Mapping[str, PyTree], placed: Mapping[str, PyTree], step: int | None = None
    ) -> tuple[dict[str, PyTree], Any, int]:
        """(trees, data state, step) of the newest checkpoint, or of `step`, as arrays with the shardings `placed`.

        Raises FileNotFoundError when there is none, ValueError when it is damaged or its arrays have other shapes.
        """
        step = _existing(self._manager.all_steps(), self.path, step)
        items = {}
        for name, tree in abstract.items():
            arguments = jax.tree.map(
                lambda leaf, sharding: ocp.ArrayRestoreArgs(sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype),
                tree,
                placed[name],
            )
            items[name] = ocp.args.PyTreeRestore(item=tree, restore_args=arguments)
        try:
            result = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore(), **items))
        except _READ_ERRORS as error:
            raise _damaged(self._manager.all_steps(), self.path / str(step), error) from error
        trees = {name: result[name] for name in abstract}
        meta = _unsealed(result["meta"], self.path / str(step) / "meta")
        _compare(meta["fingerprints"], trees, self.path / str(step))
        return trees, _rich(meta["data"]), step

    def close(self) -> None:
        """Wait for the last save and release the files. Raises OSError when it could not be written."""
        self._guard(None, self._manager.close)


def restore_params(path: str | Path, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
    """(averaged parameters as NumPy arrays in nested dicts, config) for inference on any machine.

    `path` is the folder of a training, whose newest checkpoint is read (or that of `step`), or one checkpoint alone, copied
    from anywhere: it carries its config. Raises FileNotFoundError when there is no checkpoint, ValueError for a damaged one;
    both name the path.
    """
    whole = Path(path).resolve()
    if not is_checkpoint(whole):
        steps = checkpoint_steps(whole)
        whole = whole / "checkpoints" / str(_existing(steps, whole / "checkpoints", step))
    else:
        steps = ()
    # The handlers are typed for Orbax's own path class; they work with any.
    folder: Any = whole / EMA
    meta_folder: Any = whole / "meta"
    handler = ocp.PyTreeCheckpointHandler()
    try:
        meta = ocp.JsonCheckpointHandler().restore(meta_folder)
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(folder).tree)
        params = handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=arguments))
    except _READ_ERRORS as error:
        raise _damaged(steps, whole, error) from error
    finally:
        handler.close()
    content = _unsealed(meta, meta_folder)
    prints = content["fingerprints"]
    _compare({name: value for name, value in prints.items() if name.startswith(f"{EMA}/")}, {EMA: params}, whole)
    return params, content["config"]


def is_checkpoint(path: str | Path) -> bool:
    """True for the folder of one checkpoint."""
    return (Path(path) / EMA).is_dir() and (Path(path) / "meta").is_dir()


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """Steps of the whole checkpoints of a training, ascending; empty where there is none."""
    path = Path(workdir).resolve() / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(path)) if path.is_dir() else []


def _existing(steps: Sequence[int], path: Path, step: int | None) -> int:
    steps = sorted(steps)
    if not steps:
        raise FileNotFoundError(f"{path}: no checkpoint; the training that owns this workdir has not saved one yet")
    if step is not None and step not in steps:
        raise FileNotFoundError(f"{path}: no checkpoint of step {step}; there are {steps}")
    return steps[-1] if step is None else step


def _damaged(steps: Sequence[int], path: Path, error: Exception) -> ValueError:
    others = [s for s in sorted(steps) if str(s) != path.name]
    reason = _reason(error)
    return ValueError(
        f"{path}: this checkpoint is damaged or was written by other code ({reason}); "
        f"move it away to go on from one of {others or 'none'}"
    )


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or repr(error)
    return text if len(text) <= 500 else text[:500] + " ..."


def _compare(saved: dict[str, int], trees: dict[str, PyTree], path: Path) -> None:
    """Raises ValueError naming the arrays of the checkpoint at `path` that differ from the saved ones."""
    read = fingerprint(trees)
    wrong = sorted(name for name in saved.keys() | read.keys() if saved.get(name) != read.get(name))
    if wrong:
        raise ValueError(
            f"{path}: damaged: {', '.join(wrong[:5])}{' ...' * (len(wrong) > 5)} read back other bits than were saved; "
            f"move it away to go on from an earlier one"
        )


def _sealed(meta: dict[str, Any]) -> dict[str, Any]:
    """`meta` with the CRC-32 of its canonical JSON."""
    return {"meta": meta, "crc32": zlib.crc32(json.dumps(meta, sort_keys=True).encode())}


def _unsealed(sealed: Any, path: Path) -> dict[str, Any]:
    """Inverse of `_sealed`. Raises ValueError when the checksum does not match."""
    if not isinstance(sealed, dict) or "meta" not in sealed or _sealed(sealed["meta"]) != sealed:
        raise ValueError(
            f"{path}: damaged: CRC-32 mismatch; move the checkpoint {path.parent} away to go on from an earlier one"
        )
    return sealed["meta"]


def _plain(state: Any) -> Any:
    """The data state as JSON; bytes, which Grain's loader returns, are wrapped."""
    return {"base64": base64.b64encode(state).decode()} if isinstance(state, bytes) else {"json": state}


def _rich(state: dict[str, Any]) -> Any:
    """Inverse of `_plain`."""
    return base64.b64decode(state["base64"]) if "base64" in state else state["json"]
