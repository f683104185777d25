"""A WSV dataset, read clip by clip. See `manifest.py` for the files.

A shard is complete when its record is in shards/, a dataset when manifest.json exists; each file appears at once, so a
build that is killed loses at most the shard in work. Several processes may read or build one dataset, each
with threads of its own: started by spawn, never by fork.
"""

import contextlib
import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from data_pipelines.wsv import latents as codes
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import picture
from data_pipelines.wsv.chunks import Chunks
from data_pipelines.wsv.clip import LINE, fields_of
from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.manifest import Layout
from wsm_jax.snapshot import FIELDS, TICK_HZ, WSF, WSV, Camera, Signal, Waves, channel, restore

Steps = slice | Sequence[int] | np.ndarray | None
Index = int | np.integer
_Wanted = tuple[int, str, slice | np.ndarray]
"""(clip, array, steps)."""


_TEXT_CACHE_BYTES = 2**26
"""Text of shards in memory."""
_LINE_CACHE = 1024
"""Parsed lines in memory."""
_OPENED = ("_lock", "_arrays", "_lines", "_text_bytes", "_line", "_latents")
"""Attributes that are not pickled."""


class Dataset:
    """A finished dataset, for reading; thread-safe, and picklable for other processes.

    Raises FileNotFoundError (no dataset, a file missing), ValueError (unfinished, damaged, newer schema), naming the path.
    """

    def __init__(self, path: str | PathLike):
        self.folder = Folder(path)
        self.manifest: dict[str, Any] = records.load(self.folder)
        self.layout: Layout = records.layout_of(self.manifest)
        self.name: str = self.manifest["name"]
        if gone := sorted(set(self.manifest["files"]) - self.folder.list()):
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise FileNotFoundError(f"{self.folder.name(gone[0])}{more}: missing from the dataset; restore from its source")
        self._version: int = self.manifest["schema_version"]
        self._specs = records.arrays(self.layout, self._version)
        self._open()

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._arrays: dict[str, Chunks] = {}
        self._lines: OrderedDict[int, list[bytes]] = OrderedDict()
        self._text_bytes = 0
        self._latents: dict[str, np.ndarray | None] = {}
        self._line = functools.lru_cache(_LINE_CACHE)(self._read_line)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _OPENED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return self.layout.clips

    def read(self, clip: Index, channels: Sequence[str], frames: Steps = None) -> dict[str, np.ndarray]:
        """Stored integers [T H W C] of some channels at some frames (all of them by default), in the order asked.

        Raises KeyError for a channel that the dataset lacks, IndexError, ValueError naming a damaged file, and OSError naming
        one that cannot be reached.
        """
        for name in channels:
            if name not in self.layout.channels:
                raise KeyError(f"{self.folder.path}: no channel {name!r}; it has {', '.join(self.layout.channels) or 'none'}")
        steps = _steps(frames, self.frames(clip), self._where(clip))
        shape = (1, _count(steps), self.layout.height, self.layout.width)
        table = {name: channel(name) for name in channels}
        found = {name: np.empty((*shape, row.components), row.dtype) for name, row in table.items()}
        self.read_rows([clip], [steps], found, [0])
        return {name: values[0] for name, values in found.items()}

    def read_rows(
        self, clips: Sequence[Index], frames: Sequence[slice | np.ndarray], out: Mapping[str, np.ndarray], rows: Sequence[int]
    ) -> None:
        """Reads channels of some clips, each at its frames, into rows [T H W C] of `out`; raises as `read` does.

        `frames`: slices of stride 1 with both ends, or indices.
        """
        of_clips = list(zip(clips, frames, rows, strict=True))
        plain = [name for name in out if not (name == "rgb" and self.layout.encoded)]
        self._fill([(int(clip), f"channels/{name}", steps, out[name][row]) for name in plain for clip, steps, row in of_clips])
        for clip, steps, row in of_clips if len(plain) < len(out) else ():
            self._read_pictures(clip, np.arange(self.layout.frames)[steps], out["rgb"][row])

    def frames(self, clip: Index) -> int:
        """Number of frames of a clip. Raises IndexError."""
        self._shard(clip)
        return int(self._text(clip)["frames"]) if self.layout.ragged else self.layout.frames

    def camera(self, clip: Index, frames: Steps = None) -> Camera | None:
        """The camera at some frames; None when the dataset has none."""
        if not self.layout.camera:
            return None
        found = self._read(clip, self._camera_paths(), _steps(frames, self.frames(clip), self._where(clip)))
        if self._version == 1:
            fields: dict[str, Any] = {key: found[f"camera/{key}"] for key in records.CAMERA_FIELDS}
        else:
            fields = fields_of(found["camera"], self.layout.camera_fields)
        return Camera(**fields)

    def core(self, clip: Index, ticks: Steps = None) -> tuple[Waves, np.ndarray] | None:
        """The waves [K N ...] and their times [K] s, at some ticks (all by default); None when the dataset has no core."""
        if not self.layout.ticks:
            return None
        steps = _steps(ticks, self.layout.ticks, self._where(clip))
        found = self._read(clip, self._core_paths(), steps)
        time = np.arange(self.layout.ticks)[steps] / TICK_HZ if self.even else found["core_time"]
        if self._version == 1:
            return Waves(**{key: found[f"core/{key}"] for key in FIELDS}), time
        return Waves(**fields_of(found["core"], FIELDS, ("semantic", "instance"))), time

    def frame_time(self, clip: Index) -> np.ndarray:
        """Times of the frames [T], s; of views their numbers."""
        count = self.frames(clip)
        return self._read(clip, ["frame_time"], slice(0, count))["frame_time"] if self.layout.frames else np.zeros(0)

    @property
    def even(self) -> bool:
        """True if frames and ticks of every clip are at equal intervals from 0: their times need not be read."""
        return bool(self.manifest["counts"].get("even", False))

    def signals(self, clip: Index) -> dict[str, Signal]:
        """The signals of a clip, by name: actions and other numbers beside the pictures."""
        counts: dict[str, int] = self._text(clip)["signals"] if self.layout.signals else {}
        found = {}
        for name, count in counts.items():
            paths = [f"signals/{name}_time", f"signals/{name}"]
            found[name] = Signal(*self._read(clip, paths, slice(0, count)).values())
        return found

    def measures(self) -> dict[str, np.ndarray]:
        """The measures [clips] by which clips may be chosen, by name.

        Raises ValueError naming a damaged file, OSError naming one that cannot be read.
        """
        values = np.zeros((len(self), len(self.layout.measures)), np.float32)
        for shard in range(self.layout.shards) if self.layout.measures else ():
            span = self.layout.span(shard)
            try:
                values[span.start : span.stop] = self._array("measures").first_steps(shard, len(span))
            except (ValueError, OSError) as error:
                raise self._damaged(self._specs["measures"].file(shard), error) from error
        return dict(zip(self.layout.measures, values.T, strict=True))

    def latents(self, name: str) -> np.ndarray | None:
        """Codes [clips ...] that `write_latents` wrote under a name; None where there are none.

        They are mapped from a disk, and read whole from a bucket, once. Raises ValueError naming a damaged file, OSError naming
        one that cannot be read.
        """
        with self._lock:
            if name not in self._latents:
                self._latents[name] = codes.read(self.folder, self.manifest, name)
            return self._latents[name]

    def origin(self, clip: Index) -> dict[str, Any]:
        """Origin of a clip: {"source": number in the manifest, "start": s, ...}; empty if unknown."""
        return {key: value for key, value in self._text(clip).items() if key not in LINE}

    def captions(self, clip: Index) -> tuple[str, ...]:
        """Captions of a clip: several wordings, or none."""
        return tuple(self._text(clip)["captions"])

    def spans(self, clip: Index) -> tuple[tuple[float, float] | None, ...]:
        """(start, end) of each caption, s of the clip; None: the whole clip. Empty if no caption has times."""
        return tuple(span and (float(span[0]), float(span[1])) for span in self._text(clip).get("spans", ()))

    def events(self, clip: Index) -> tuple[dict, ...]:
        """Events of a clip, as {"kind", "time", "instances"}."""
        return tuple(self._text(clip)["events"])

    def core_time(self, clip: Index) -> np.ndarray:
        """Times of the ticks [K], s."""
        return self._read(clip, ["core_time"], slice(0, self.layout.ticks))["core_time"] if self.layout.ticks else np.zeros(0)

    def ask(
        self,
        clips: Sequence[int],
        channels: Sequence[str] = (),
        frames: Sequence[slice | np.ndarray] | None = None,
        ticks: Sequence[slice] | None = None,
        *,
        times: bool = False,
        text: bool = False,
        signals: bool = False,
    ) -> None:
        """Sends the requests for later reads of some clips from a bucket, all at once, within `folder.asking`.

        `frames` and `ticks` are those of each clip that will be read. Errors are raised by the reads.
        """
        if text or signals or self.layout.ragged:
            for shard in {self._shard(clip) for clip in clips} - set(self._lines):
                self.folder.ask(records.text_file(shard))
        wanted: list[_Wanted] = []
        for number, clip in enumerate(clips):
            if frames is not None:
                plain = [f"channels/{name}" for name in channels if not (name == "rgb" and self.layout.encoded)]
                plain += self._camera_paths() if self.layout.camera else []
                wanted += [(clip, path, frames[number]) for path in plain]
            if ticks is not None:
                wanted += [(clip, path, ticks[number]) for path in self._core_paths()]
            if times and self.layout.frames:
                wanted.append((clip, "frame_time", slice(0, self.frames(clip))))
            if times and self.layout.ticks:
                wanted.append((clip, "core_time", slice(0, self.layout.ticks)))
            for name, count in self._text(clip)["signals"].items() if signals and self.layout.signals else ():
                wanted += [(clip, path, slice(0, count)) for path in (f"signals/{name}_time", f"signals/{name}")]
        pictures = list(zip(clips, frames or (), strict=False)) if "rgb" in channels and self.layout.encoded else []
        runs = [(clip, np.unique(np.arange(self.layout.frames)[steps] // self.layout.run)) for clip, steps in pictures]
        self._send(wanted, [(clip, some) for clip, some in runs if len(some)])

    def _send(self, wanted: list[_Wanted], runs: list[tuple[int, np.ndarray]]) -> None:
        """Sends the requests for arrays, and for runs of encoded pictures once their places have come."""
        path = records.index_path(self.layout)
        wanted = wanted + [(clip, path, slice(int(some[0]), int(some[-1]) + 1)) for clip, some in runs]
        with contextlib.suppress(ValueError, OSError):
            for clip, path, _ in wanted:
                self._array(path).index(self._shard(clip))
            for clip, path, steps in wanted:
                self._array(path).ask(self._array(path).index(self._shard(clip))(), clip, steps)
            for clip, some in runs:
                self.folder.fetch(records.bytes_file(self.layout, self._shard(clip)), self._places(clip, some)[:, :2].tolist())

    def _places(self, clip: Index, runs: np.ndarray) -> np.ndarray:
        """(offset, bytes, crc32) of runs [n 3] of encoded pictures."""
        path = records.index_path(self.layout)
        return self._read(clip, [path], slice(int(runs[0]), int(runs[-1]) + 1))[path][runs - runs[0]]

    def clip(self, clip: Index) -> WSV:
        """Everything about a clip, in physical units; over views, frame times are the numbers of the views."""
        channels = {name: restore(name, values) for name, values in self.read(clip, self.layout.channels).items()}
        waves, core_time = self.core(clip) or (None, None)
        text = self.captions(clip), self.events(clip), self.signals(clip)
        return WSV(channels, self.frame_time(clip), self.camera(clip), waves, core_time, *text, self.spans(clip))

    def field(self, clip: Index) -> WSF:
        """A clip over views, in physical units. Raises ValueError for one over time, and one without cameras."""
        camera, core = self.camera(clip), self.core(clip, slice(0, 1))
        if self.layout.over != "views" or camera is None:
            raise ValueError(f"{self._where(clip)}: over {self.layout.over}; needed views with cameras")
        channels = {name: restore(name, values) for name, values in self.read(clip, self.layout.channels).items()}
        return WSF(channels, camera, None if core is None else core[0][0])

    def _camera_paths(self) -> list[str]:
        return [f"camera/{key}" for key in records.CAMERA_FIELDS] if self._version == 1 else ["camera"]

    def _core_paths(self) -> list[str]:
        times = [] if self.even else ["core_time"]
        return [*(f"core/{key}" for key in FIELDS), *times] if self._version == 1 else ["core", *times]

    def _where(self, clip: Index) -> str:
        return f"{self.folder.path}: clip {clip}"

    def _shard(self, clip: Index) -> int:
        if not 0 <= clip < len(self):
            raise IndexError(f"{self.folder.path}: clip {clip} is not in 0..{len(self) - 1}")
        return int(clip) // self.layout.clips_per_shard

    def _read(self, clip: Index, paths: Sequence[str], steps: slice | np.ndarray) -> dict[str, np.ndarray]:
        """Rows of several arrays of a clip."""
        found = {path: self._array(path).empty(steps) for path in paths}
        self._fill([(int(clip), path, steps, buffer) for path, buffer in found.items()])
        return found

    def _fill(self, wanted: Sequence[tuple[int, str, slice | np.ndarray, np.ndarray]]) -> None:
        """Reads steps of arrays of clips (clip, array, steps, output), requested together; errors name the damaged file."""
        arrays = {path: self._array(path) for path in {path for _, path, _, _ in wanted}}
        path, shard, waiting = "", 0, []
        try:
            sent, indices = {}, {}
            for path, shard in dict.fromkeys((path, self._shard(clip)) for clip, path, _, _ in wanted):
                sent[path, shard] = arrays[path].index(shard)
            for (path, shard), later in sent.items():
                indices[path, shard] = later()
            for clip, path, steps, buffer in wanted:
                shard = self._shard(clip)
                later = arrays[path].read(indices[path, shard], clip, steps, buffer)
                if self.folder.local:
                    later()
                else:
                    waiting.append((path, shard, later))
            for path, shard, later in waiting:  # noqa: B007 (the error names them)
                later()
        except (ValueError, OSError) as error:
            raise self._damaged(self._specs[path].file(shard), error) from error

    def _array(self, path: str) -> Chunks:
        """The chunks of an array; its metadata are checked against their checksum."""
        chunks = self._arrays.get(path)
        if chunks is None:
            self._checked(self._specs[path].metadata_file)
            chunks = self._arrays.setdefault(path, Chunks(self.folder, self._specs[path]))
        return chunks

    def _checked(self, key: str) -> bytes:
        """A whole small file, checked against its checksum. Raises ValueError or OSError naming it."""
        data = self.folder.read(key)
        if data is None or records.sha256(data) != self.manifest["files"][key]["sha256"]:
            raise self._damaged(key, "missing" if data is None else "its checksum does not match")
        return data

    def _damaged(self, key: str, why: object) -> ValueError | OSError:
        self.folder.forget(key)
        if self.folder.unreached(why):
            return self.folder.unread(key, why)
        return ValueError(f"{self.folder.name(key)}: damaged or cut short; restore it from its source, or rebuild it ({why})")

    def _text(self, clip: Index) -> dict[str, Any]:
        """The line of a clip in its shard's text."""
        return self._line(int(clip))

    def _read_line(self, clip: int) -> dict[str, Any]:
        """Parses the line of a clip; texts of recent shards are cached as bytes, a tenth of their size as objects."""
        shard = self._shard(clip)
        lines = self._lines.get(shard)
        if lines is None:
            data = self._checked(records.text_file(shard))
            lines = data.splitlines()
            with self._lock:
                if self._lines.get(shard) is None:
                    self._lines[shard] = lines
                    self._text_bytes += len(data)
                while self._text_bytes > _TEXT_CACHE_BYTES and len(self._lines) > 1:
                    self._text_bytes -= sum(len(line) + 1 for line in self._lines.popitem(last=False)[1])
        return json.loads(lines[clip % self.layout.clips_per_shard])

    def _read_pictures(self, clip: Index, frames: np.ndarray, out: np.ndarray) -> None:
        """Decodes rgb into `out` [T H W 3]; only the runs of these frames are read, and each is checked before decoding."""
        layout, key = self.layout, records.bytes_file(self.layout, self._shard(clip))
        count = self.frames(clip)
        if not len(frames):
            return
        runs, place = np.unique(frames // layout.run, return_inverse=True)
        index = self._places(clip, runs)
        try:
            pieces = self.folder.fetch(key, index[:, :2].tolist())
            for number, begin in enumerate((runs * layout.run).tolist()):
                where = np.flatnonzero(place == number)
                steps = frames[where] - begin
                first, last = int(steps.min()), int(steps.max())
                follow = np.array_equal(steps, np.arange(first, last + 1)) and where[-1] - where[0] == last - first
                buffer = out[where[0] : where[-1] + 1] if follow else np.empty((last - first + 1, *out.shape[1:]), np.uint8)
                held = min(layout.run, count - begin)
                picture.decode(layout.encoded, pieces[number](), int(index[number, 2]), buffer, first, held)
                if not follow:
                    out[where] = buffer[steps - first]
        except (ValueError, OSError) as error:
            raise self._damaged(key, error) from error


def _count(steps: slice | np.ndarray) -> int:
    return steps.stop - steps.start if isinstance(steps, slice) else len(steps)


def _steps(steps: Steps, total: int, where: str) -> slice | np.ndarray:
    """An index for TensorStore, which does not count negative indices from the end. Raises IndexError."""
    if steps is None:
        return slice(0, total)
    if isinstance(steps, slice):
        first, last, stride = steps.indices(total)
        return slice(first, max(first, last)) if stride == 1 else np.arange(first, last, stride)
    index = np.asarray(steps, np.int64)
    if index.size and (index.min() < 0 or index.max() >= total):
        raise IndexError(f"{where}: {index.min()}..{index.max()} asked, it has 0..{total - 1}")
    return index
