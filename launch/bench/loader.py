"""`python -m launch.bench loader`: clips per second out of storage, by our loader and by common alternatives.

Each contender runs in its own process and reads the same clips in the same order, in batches. Contenders take turns, and the
tables show medians of the turns. "Warm": all files are in the page cache; "cold": they were evicted, and one batch is read. A
contender that prefetches has no cold turn, because its batch was read before. CPU time is that of all threads of the process,
system time included. Bytes read are counted by the system for ours, and are the sizes of the records or files for the others;
"amplified" is that over the average stored size of the frames of a clip. Memory is the resident size after a batch, at most,
and the part of it before the first turn of the row. The rows of the bridge and the world are the batches that the quickstart
trains on, with their transforms; the world reads no frames but the core of the same duration.

With --latency_ms, further tables read the same files from a bucket: a local S3 server in its own process, which delays each
request and shares the processor. Every contender may have --reads requests in flight, and turns last 100 latencies longer.
ArrayRecord cannot read buckets: there a record is one request of the average size of a record, by the same client as ours, and
array_record decodes it from the page cache; looking up its place costs no request.

The files are created for the run, or kept in --data=FOLDER; see `launch.bench.files`.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from absl import flags

from launch import command
from launch.bench.contender import files

ROWS = {
    "simulated": (
        "loader rgb", "loader rgb-2", "aligned rgb", "loader raw", "loader core", "bridge train", "world train",
        "read rgb", "read raw", "array_record", "tar", "npy", "memmap", "zstd rgb",
    ),
    "real": (
        "loader jpeg", "loader h264", "aligned h264", "loader rgb", "read jpeg", "read h264", "array_record", "tar", "npy",
        "memmap", "sequential mp4",
    ),
}  # fmt: skip
LABELS = {
    "loader": "our loader",
    "loader core": "our loader, with core and captions",
    "loader raw": "our loader, chunks not compressed",
    "bridge": "our loader, all that the quickstart's bridge trains on",
    "world": "our loader, core and tokens of the quickstart's world",
    "aligned": "our loader, windows that begin with a chunk",
    "read raw": "our Dataset.read, chunks not compressed",
    "read": "our Dataset.read",
    "array_record": "ArrayRecord, a pickle an episode, Grain",
    "tar": "tar of mp4, PyAV",
    "npy": "np.load of an episode",
    "memmap": "np.memmap",
    "zstd": "bound: zstd alone, of our chunks",
    "sequential": "bound: PyAV, mp4 frame after frame",
}
CODECS = {"simulated": ("rgb", "rgb-2", "raw", "core"), "real": ("jpeg", "h264", "rgb")}
"""Datasets of each kind with lossless rgb; NAME-2 has chunks of 2 frames, as `launch.data advise` recommends for windows of 16;
the others have chunks of 8."""
TRAINED = {"simulated": ("train",), "real": ()}
"""Datasets with everything that the quickstart trains on; not part of the bucket tables."""
CHUNKED = {"simulated": "rgb", "real": "h264"}
CHUNK_HEAD = (
    "frames", "frames_per_chunk", "raw / stored", "CPU ms / clip", "KiB read / clip", "amplified", "aligned: CPU ms", "KiB",
    "load",
)  # fmt: skip
BUCKET = {
    "array_record": "ArrayRecord, a pickle an episode, Grain",
    "zstd": "bound: ArrayRecord's bytes, zstd alone",
    "npy": "npy of an episode",
}
"""Contenders that read from a bucket, beside our loader on each dataset."""
BUCKET_HEAD = (
    "frames", "contender", "clips/s", "/ ArrayRecord", "requests / clip", "KiB / clip", "CPU ms / clip", "MiB", "load",
)  # fmt: skip
_LATENCIES = 100
"""Latencies that a turn lasts at least."""
HEAD = (
    "frames", "contender", "frames/s", "MB/s", "CPU ms / clip", "/ memmap", "cold frames/s", "cold CPU ms", "KiB read / clip",
    "amplified", "MiB", "MiB before", "load",
)  # fmt: skip


class Child(NamedTuple):
    """A contender's process."""

    name: str
    process: subprocess.Popen
    say: IO[str]
    hear: IO[str]

    def ask(self, **wanted: Any) -> dict[str, Any]:
        """Run one turn. Raises RuntimeError when the process died."""
        self.say.write(json.dumps(wanted) + "\n")
        self.say.flush()
        line = self.hear.readline()
        if not line:
            raise RuntimeError(f"{self.name}: its process ended with {self.process.wait()}; its output is above")
        return json.loads(line)


@contextlib.contextmanager
def children(
    names: Sequence[str], root: Path, batch: int, threads: int, hosts: int = 1, more: Mapping[str, str] | None = None
) -> Iterator[list[Child]]:
    """A waiting process for each contender; `more` are additional environment variables."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **(more or {})}
    started = []
    try:
        for name in names:
            line = [sys.executable, "-m", "launch.bench.process", name, str(root)]
            line += [str(number) for number in (batch, threads, hosts)]
            pipe = subprocess.PIPE
            process = subprocess.Popen(line, stdin=pipe, stdout=pipe, text=True, env=environment)
            assert process.stdin and process.stdout
            started.append(Child(name, process, process.stdin, process.stdout))
        yield started
    finally:
        for child in started:
            child.say.close()
            child.process.wait()
            child.hear.close()


def stored(root: Path, name: str) -> int:
    """Stored bytes of the pixels of all episodes in the files of a contender."""
    kind, _, dataset = name.partition(" ")
    place = {
        "array_record": "clips.array_record",
        "tar": "clips.tar",
        "npy": "npy",
        "memmap": "frames.raw",
        "sequential": "clips.tar",
        "world": f"{dataset}/core",
    }
    path = root / (place.get(kind) or f"{dataset}/channels")
    return sum(file.stat().st_size for file in files(path))


def measure(team: Sequence[Child], frames: int, rounds: int, seconds: float) -> tuple[dict[str, dict[str, Any]], bool]:
    """Medians of the turns of each contender, and True if the system evicted the files."""
    warm: dict[str, list[dict]] = {child.name: [] for child in team}
    cold: dict[str, list[dict]] = {child.name: [] for child in team}
    for _ in range(rounds):
        for child in team:
            warm[child.name].append(child.ask(frames=frames, seconds=seconds, cold=False))
    for _ in range(rounds):
        for child in team:
            cold[child.name].append(child.ask(frames=frames, seconds=seconds, cold=True))
    found = {}
    for child in team:
        hot, new = warm[child.name], cold[child.name]
        row = {key: statistics.median(one[key] for one in hot) for key in ("clips_s", "cpu_ms", "read", "load")}
        row |= {f"cold_{key}": statistics.median(one[key] for one in new) for key in ("clips_s", "cpu_ms")}
        row |= {"rss": max(one["rss"] for one in hot + new), "before": hot[0]["before"], "ahead": hot[0]["ahead"]}
        found[child.name] = row
    return found, all(one["forgot"] for turns in cold.values() for one in turns)


def label(name: str) -> str:
    """The name of a contender in the tables."""
    kind, _, dataset = name.partition(" ")
    if name in LABELS or kind not in ("loader", "aligned", "read"):
        return LABELS.get(name) or LABELS[kind]
    codec, _, chunk = dataset.partition("-")
    return f"{LABELS[kind]}, {codec}" + (f", chunks of {chunk}" if chunk else "")


def row(name: str, found: dict[str, Any], frames: int, size: int, floor: float, kept: float) -> list[str]:
    """A line of the table; `kept` is the stored size of a frame, bytes."""
    kind = name.partition(" ")[0]
    bound = kind in ("zstd", "sequential")
    rate = frames * found["clips_s"]
    read = [] if not bound else ["-", "-"]
    read = read or [f"{found['read'] / 2**10:.1f}", f"{found['read'] / (kept * frames):.2f}"]
    cold = ["-", "-"] if bound or found["ahead"] else [f"{frames * found['cold_clips_s']:.0f}", f"{found['cold_cpu_ms']:.3f}"]
    return [
        str(frames), label(name), f"{rate:.0f}", f"{rate * size * size * 3 / 1e6:.1f}", f"{found['cpu_ms']:.3f}",
        f"{found['cpu_ms'] / floor:.1f}", *cold, *read,
        f"{found['rss'] / 2**20:.0f}", f"{found['before'] / 2**20:.0f}", f"{found['load']:.1f}",
    ]  # fmt: skip


def table(kind: str, root: Path, size: int, values: flags.FlagValues) -> None:
    """Print the measurements of one kind of video at one size."""
    from launch.bench.files import EPISODE, windows

    names = [name for name in values.contenders or ROWS[kind] if name != "zstd rgb" or _has_zstandard()]
    names += [] if "memmap" in names else ["memmap"]  # the others are compared with it
    lengths = [int(text) for text in values.frames]
    for frames in lengths:
        windows(root, CODECS[kind], frames, values.clips)
    episodes = len(files(root / "npy"))
    print(f"\n{kind} video, {size} x {size} pixels; {episodes} episodes of {EPISODE} frames\n")
    print("| " + " | ".join(HEAD) + " |\n|---:|---|" + "---:|" * (len(HEAD) - 2))
    forgotten = True
    with children(names, root, values.batch, values.threads, values.hosts) as team:
        for frames in lengths:
            found, forgot = measure(team, frames, values.rounds, values.seconds)
            forgotten &= forgot
            for name in names:
                kept = stored(root, name) / (episodes * EPISODE)
                print(
                    "| " + " | ".join(row(name, found[name], frames, size, found["memmap"]["cpu_ms"], kept)) + " |", flush=True
                )
    if not forgotten:
        print("\nThe system did not evict all files: the cold columns are of partly warm files.")


def chunk_table(kind: str, root: Path, size: int, chunks: Sequence[int], values: flags.FlagValues) -> None:
    """Print size and cost of several chunk lengths, for windows that begin anywhere and windows that begin with a chunk."""
    from launch.bench.files import EPISODE, windows

    episodes, codec = len(files(root / "npy")), CHUNKED[kind]
    print(f"\n{kind} video, {size} x {size} pixels, {codec} in chunks of several lengths\n")
    print("| " + " | ".join(CHUNK_HEAD) + " |\n|---:" + "|---:" * (len(CHUNK_HEAD) - 1) + "|")
    names = [f"{how} {codec}-{chunk}" for how in ("loader", "aligned") for chunk in chunks]
    with children(names, root, values.batch, values.threads, values.hosts) as team:
        for frames in (int(text) for text in values.frames):
            windows(root, [f"{codec}-{chunks[0]}"], frames, values.clips)
            found, _ = measure(team, frames, values.rounds, values.seconds)
            for chunk in chunks:
                anywhere, aligned = (found[f"{how} {codec}-{chunk}"] for how in ("loader", "aligned"))
                kept = stored(root, f"loader {codec}-{chunk}") / (episodes * EPISODE)
                cells = [str(frames), str(chunk), f"{size * size * 3 / kept:.2f}", f"{anywhere['cpu_ms']:.3f}"]
                cells += [f"{anywhere['read'] / 2**10:.1f}", f"{anywhere['read'] / (kept * frames):.2f}"]
                cells += [f"{aligned['cpu_ms']:.3f}", f"{aligned['read'] / 2**10:.1f}", f"{anywhere['load']:.1f}"]
                print("| " + " | ".join(cells) + " |", flush=True)


def originals(videos: Path, values: flags.FlagValues) -> None:
    """Print the rate at which PyAV decodes the original videos."""
    with children(["sequential originals"], videos, 1, 0) as (child,):
        turns = [child.ask(frames=16, seconds=values.seconds, cold=False) for _ in range(values.rounds + 1)][1:]
    rate, cpu = (statistics.median(one[key] for one in turns) for key in ("clips_s", "cpu_ms"))
    print(f"\nThe videos as they are, PyAV, frame after frame, as RGB: {16 * rate:.0f} frames/s, {cpu / 16:.2f} CPU ms a frame")


def bucket_rows(found: Mapping[str, dict[str, Any]], frames: int) -> list[list[str]]:
    """The lines of the table of a bucket, from the medians of each contender."""
    floor = found["bucket array_record"]["clips_s"]
    rows = []
    for name, one in found.items():
        kind = name.partition(" ")[2]
        rows.append([
            str(frames), BUCKET.get(kind) or label(f"loader {kind}"), f"{one['clips_s']:.0f}",
            f"{one['clips_s'] / floor:.1f}", f"{one['requests']:.2f}", f"{one['read'] / 2**10:.1f}", f"{one['cpu_ms']:.3f}",
            f"{one['rss'] / 2**20:.0f}", f"{one['load']:.1f}",
        ])  # fmt: skip
    return rows


def bucket_table(kind: str, root: Path, size: int, values: flags.FlagValues) -> None:
    """Print the measurements of one kind of video at one size in a bucket."""
    from launch.bench.files import windows
    from launch.bench.object_store import serving

    names = [f"bucket {name}" for name in (*CODECS[kind], *BUCKET)]
    print(
        f"\n{kind} video, {size} x {size} pixels, from a bucket: {values.latency_ms:g} ms, {values.reads} requests in flight\n"
    )
    print("| " + " | ".join(BUCKET_HEAD) + " |\n|---:|---|" + "---:|" * (len(BUCKET_HEAD) - 2))
    seconds = values.seconds + _LATENCIES * values.latency_ms / 1000
    with contextlib.ExitStack() as stack:
        lead = there(stack.enter_context(serving(root, values.latency_ms)), values.reads)
        team = stack.enter_context(children(names, root, values.batch, 0, values.hosts, lead))
        for frames in (int(text) for text in values.frames):
            windows(root, CODECS[kind], frames, values.clips)
            turns = [{child.name: child.ask(frames=frames, seconds=seconds, cold=False) for child in team}
                     for _ in range(values.rounds)]  # fmt: skip
            found = {
                name: {key: statistics.median(turn[name][key] for turn in turns) for key in turns[0][name]} for name in names
            }
            for row in bucket_rows(found, frames):
                print("| " + " | ".join(row) + " |", flush=True)


def _check_memory(size: int, episode: int, values: flags.FlagValues) -> None:
    """Raises Usage where the episodes that ArrayRecord and npy have in work would not fit into half of the memory."""
    need = 3 * (values.reads + values.batch) * episode * size * size * 3
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if need > 0.5 * have:
        raise command.Usage(
            f"--reads={values.reads} --sizes={size}: ArrayRecord would have {need / 2**30:.1f} GiB of episodes in work, of "
            f"{have / 2**30:.1f} GiB of memory; lower one of them, or leave --latency_ms out"
        )


def there(url: str, reads: int) -> dict[str, str]:
    """Environment variables that direct s3:// to a local store without credentials, and let malloc keep freed memory, which
    favours ArrayRecord: it allocates a whole episode for each clip."""
    own = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    own |= {"AWS_ENDPOINT_URL_S3": url, "TENSORSTORE_S3_REQUEST_CONCURRENCY": str(reads), "no_proxy": "127.0.0.1"}
    nobody = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
              "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")  # fmt: skip
    nowhere = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), f"{os.devnull}/none")
    return own | dict.fromkeys(nobody, "") | nowhere


def _has_zstandard() -> bool:
    try:
        import zstandard  # noqa: F401
    except ImportError:
        print("zstd alone is left out: the package zstandard is not installed")
        return False
    return True


def main(arguments: list[str]) -> int:
    """Print the tables, in Markdown."""
    values = flags.FlagValues()
    flags.DEFINE_list("sizes", ["64", "128", "256"], "sides of the square pictures, pixels", flag_values=values)
    flags.DEFINE_multi_enum("kinds", ["simulated", "real"], ["simulated", "real"], "of video", flag_values=values)
    flags.DEFINE_list("frames", ["8", "16", "64"], "lengths of the clips", flag_values=values)
    flags.DEFINE_integer("batch", 8, "clips of a batch, of one host", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("hosts", 1, "that load a batch together; ours is the first of them", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("threads", 0, "of Grain, for ours and ArrayRecord", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("rounds", 3, "turns whose median counts", lower_bound=1, flag_values=values)
    flags.DEFINE_float("seconds", 0.1, "of a turn, at least", lower_bound=0.0, flag_values=values)
    flags.DEFINE_integer("clips", 512, "clips after which all begin anew", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("episodes", 4, "simulated scenes", lower_bound=1, flag_values=values)
    flags.DEFINE_string("videos", None, "folder of real .mp4; without it only simulated video is read", flag_values=values)
    flags.DEFINE_string("data", None, "folder in which the files stay for the next run", flag_values=values)
    flags.DEFINE_float("latency_ms", 0.0, "of a bucket; 0: nothing is read from one", lower_bound=0.0, flag_values=values)
    flags.DEFINE_integer("reads", 64, "requests in flight, to the bucket", lower_bound=1, flag_values=values)
    flags.DEFINE_list("contenders", [], "rows of the local tables, as 'loader rgb,world train'; all", flag_values=values)
    flags.DEFINE_bool("local", True, "tables of what reads from the disk", flag_values=values)
    flags.DEFINE_list("chunks", [], "frames of a chunk, by comma: tables of what they cost, alone", flag_values=values)
    flags.DEFINE_bool("quick", False, "one size, one length, two scenes, two videos", flag_values=values)
    command.parse("python -m launch.bench loader", values, arguments)
    if values.quick:
        values.sizes, values.frames, values.episodes = ["64"], ["16"], 2
    sizes, lengths = _numbers(values.sizes, "--sizes"), _numbers(values.frames, "--frames")
    if any(size % 2 for size in sizes):
        raise command.Usage(f"--sizes={','.join(values.sizes)}; needed even numbers, for H.264")
    with contextlib.ExitStack() as stack:
        root = Path(values.data or stack.enter_context(tempfile.TemporaryDirectory()))
        return _run(root, sizes, lengths, values)


def _run(root: Path, sizes: list[int], lengths: list[int], values: flags.FlagValues) -> int:
    from launch.bench import files as made
    from launch.bench.render import machine

    if not (values.local or values.latency_ms):
        raise command.Usage("--nolocal without --latency_ms leaves nothing to measure; add --latency_ms=20")
    if values.latency_ms:
        _check_memory(max(sizes), made.EPISODE, values)
    rows = {name for kind in values.kinds for name in ROWS[kind]}
    if unknown := sorted(set(values.contenders) - rows):
        raise command.Usage(f"--contenders={','.join(unknown)}: unknown; one of {', '.join(sorted(rows))}")
    if max(lengths) > made.EPISODE:
        raise command.Usage(f"--frames={','.join(values.frames)}; episodes have {made.EPISODE} frames")
    chunks = _numbers(values.chunks, "--chunks") if values.chunks else []
    if max(chunks, default=0) > made.EPISODE:
        raise command.Usage(f"--chunks={','.join(values.chunks)}; episodes have {made.EPISODE} frames")
    folder = Path(values.videos or "")
    videos = sorted(folder.glob("*.mp4"))[: 2 if values.quick else None] if values.videos else []
    if values.videos and not videos:
        raise FileNotFoundError(f"--videos={folder}: no .mp4 there")
    if not videos and "simulated" not in values.kinds:
        raise command.Usage("--kinds=real needs a folder of .mp4: --videos=FOLDER")
    print(machine())
    shared = f" for each of {values.hosts} hosts" if values.hosts > 1 else ""
    print(f"batches of {values.batch}{shared}, {values.threads} threads of Grain; medians of {values.rounds} turns")
    largest = max(sizes)
    sources = {}
    if "simulated" in values.kinds:
        sources["simulated"] = made.simulated(root / f"simulated_{values.episodes}_{largest}", values.episodes, largest)
    if videos and "real" in values.kinds:
        sources["real"] = made.real(root / f"real_{len(videos)}_{largest}", videos, largest)
    for kind, source in sources.items():
        for size in sizes:
            codecs = [f"{CHUNKED[kind]}-{chunk}" for chunk in chunks] or [*CODECS[kind], *TRAINED[kind]]
            place = made.write(Path(f"{source.folder.path}_at_{size}"), source, size, codecs)
            os.sync()  # what is not on the disk yet cannot be forgotten
            if chunks:
                chunk_table(kind, place, size, chunks, values)
                continue
            if values.local:
                table(kind, place, size, values)
            if values.latency_ms:
                bucket_table(kind, place, size, values)
    if "real" in sources and values.local and not chunks:
        originals(folder, values)
    return 0


def _numbers(texts: list[str], flag: str) -> list[int]:
    """Positive numbers. Raises Usage."""
    if not texts or not all(text.isdecimal() and int(text) for text in texts):
        raise command.Usage(f"{flag}={','.join(texts)}; needed whole numbers above 0, by comma")
    return [int(text) for text in texts]
