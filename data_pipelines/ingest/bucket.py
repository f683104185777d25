"""Buckets: size, rate and length of clips."""

import dataclasses
import math
import re

import numpy as np

_FORM = re.compile(r"(\d{1,6})x(\d{1,6})@(\d+\.?\d*|\.\d+)x(\d+\.?\d*|\.\d+)")


@dataclasses.dataclass(frozen=True, order=True)
class Bucket:
    """Size, rate and length of clips."""

    height: int
    width: int
    frame_hz: float | int
    seconds: float | int

    @classmethod
    def parse(cls, text: str) -> "Bucket":
        """Bucket from HEIGHTxWIDTH@HZxSECONDS, as 256x256@8x2. Raises ValueError."""
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise ValueError(f"bucket {text!r}; needed HEIGHTxWIDTH@HZxSECONDS, as 256x256@8x2")
        return cls(int(match[1]), int(match[2]), float(match[3]), float(match[4])).check()

    def check(self) -> "Bucket":
        """Return itself. Raises ValueError for numbers that are not positive, or no whole number of frames."""
        if not (0 < self.frame_hz < math.inf and 0 < self.seconds < math.inf and min(self.height, self.width) > 0):
            raise ValueError(
                f"ingest: {self.frame_hz:g} frames a second, clips of {self.seconds:g} s, {self.height} x {self.width} pixels; "
                "needed positive numbers"
            )
        exact = self.seconds * self.frame_hz
        if self.frames < 2 or abs(self.frames - exact) > 1e-3:
            raise ValueError(
                f"ingest: clips of {self.seconds:g} s at {self.frame_hz:g} Hz are {exact:g} frames; needed a whole "
                f"number, at least 2, as with {max(self.frames, 2) / self.frame_hz:.6g} s"
            )
        return self

    @property
    def frames(self) -> int:
        """Frames of a clip."""
        return round(self.seconds * self.frame_hz)

    @property
    def name(self) -> str:
        """Name of the folder of its clips."""
        return f"{self.height}x{self.width}_{self.frame_hz:g}hz_{self.seconds:g}s"


def best_buckets(buckets: tuple[Bucket, ...], height: int, width: int | float, frame_hz: float | int) -> list[Bucket]:
    """Buckets for pictures of a size and rate, longest first.

    They have the aspect nearest to the pictures', then the largest size that does not enlarge them (else the smallest size),
    then the highest rate that the pictures reach. Empty if all rates exceed theirs by more than 1 %: frames would be repeated.
    """
    slow = [b for b in buckets if b.frame_hz <= 1.01 * frame_hz]
    if not slow:
        return []
    aspects = np.array([abs(math.log(b.width / b.height * height / width)) for b in slow])
    near = [b for b, off in zip(slow, aspects, strict=True) if off <= aspects.min() + 1e-6]
    small = [b for b in near if b.height <= height and b.width <= width]
    size = max((b.height, b.width) for b in small) if small else min((b.height, b.width) for b in near)
    same = [b for b in near if (b.height, b.width) == size]
    rate = max(b.frame_hz for b in same)
    return sorted((b for b in same if b.frame_hz == rate), key=lambda b: -b.seconds)
