"""The process of one contender of `python -m launch.bench loader`, controlled by lines of JSON.

python -m launch.bench.process NAME FOLDER BATCH THREADS HOSTS
"""

import json
import sys
from pathlib import Path

import numpy as np

from launch.bench.bucket import open_bucket
from launch.bench.contender import Contender, open_local, resident, turn, warm


def open_contender(name: str, root: Path, frames: int, batch: int, threads: int = 0, hosts: int = 1) -> Contender:
    """The contender of a name, as "loader rgb" or "array_record"; "bucket NAME" reads from the object store."""
    kind, _, dataset = name.partition(" ")
    if kind == "bucket":
        windows, shape = np.load(root / f"windows_{frames}.npy"), np.load(root / "npy" / "00000.npy", mmap_mode="r").shape
        return open_bucket(dataset, root, windows, shape, frames, batch, hosts)
    return open_local(name, root, frames, batch, threads, hosts)


def main(arguments: list[str]) -> int:
    """Answer each line {"frames", "seconds", "cold"} with a line of measurements."""
    name, root, (batch, threads, hosts) = arguments[0], Path(arguments[1]), map(int, arguments[2:])
    opened: dict[int, Contender] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        frames = asked["frames"]
        if frames not in opened:
            opened.clear()
            opened[frames] = open_contender(name, root, frames, batch, threads, hosts)
            warm(opened[frames].path)
            next(opened[frames].batches)
        before = resident()
        found = turn(opened[frames], asked["seconds"], asked["cold"])
        print(json.dumps({**found, "before": before}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
