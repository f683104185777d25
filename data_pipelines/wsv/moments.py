"""Streaming statistics, merged over shards."""

from typing import Any

import numpy as np


class Moments:
    """Count, mean, sum of squared deviations, minimum and maximum per component, merged pairwise (Chan et al. 1983)."""

    def __init__(self, components: int):
        self.count = 0
        self.mean, self.m2 = np.zeros(components), np.zeros(components)
        self.low, self.high = np.full(components, np.inf), np.full(components, -np.inf)

    def add(self, values: np.ndarray) -> None:
        """Adds `values` [..., components]."""
        # Components first: sums along contiguous memory are several times faster, and NumPy pairs them up.
        x = np.ascontiguousarray(values.reshape(-1, len(self.mean)).T, np.float64)
        if x.size:
            mean = x.mean(1)
            deviation = x - mean[:, None]
            self._merge(x.shape[1], mean, np.einsum("ij,ij->i", deviation, deviation), x.min(1), x.max(1))

    def _merge(self, count: int, mean: np.ndarray, m2: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.m2 = self.m2 + m2 + delta**2 * (self.count * count / total)
        self.low, self.high, self.count = np.minimum(self.low, low), np.maximum(self.high, high), total

    def record(self) -> dict[str, Any]:
        """The exact state, for a shard record."""
        if not self.count:
            return {"count": 0}
        fields = {key: getattr(self, key).tolist() for key in ("mean", "m2", "low", "high")}
        return {"count": self.count, **fields}

    def merge(self, record: dict[str, Any]) -> None:
        """Adds the state that `record` returned."""
        if record["count"]:
            self._merge(record["count"], *(np.asarray(record[key]) for key in ("mean", "m2", "low", "high")))

    def summary(self) -> dict[str, Any]:
        """{"count", "mean", "std", "min", "max"} for the manifest; lists per component, empty without values."""
        if not self.count:
            return {"count": 0, "mean": [], "std": [], "min": [], "max": []}
        std = np.sqrt(self.m2 / self.count)
        parts = {"mean": self.mean, "std": std, "min": self.low, "max": self.high}
        return {"count": self.count, **{key: value.tolist() for key, value in parts.items()}}
