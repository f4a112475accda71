"""How long things took: exact least and most, percentiles that are hardly off, in bounded memory."""

from __future__ import annotations

from collections import defaultdict
from math import ceil, frexp, inf

from asyncworkers import _checks

__all__ = ["ACCURACY", "Histogram"]

ACCURACY = 1 / 128
"""How far a percentile may be off, relative to itself: 0.8 %."""

_STEPS = 64  # buckets for each doubling of the time
_LEAST = 1e-9  # seconds; nothing shorter is told apart
_FRESH = 256  # times that are kept until they are put into their buckets


class Histogram:
    """How long things took, in seconds: how many, their sum, least and most, and percentiles.

    Each doubling of the time has 64 buckets of equal width, so that a percentile is off by 0.8 % at
    most (`ACCURACY`), or by a nanosecond, wherever it lies; the least and the most are exact.
    """

    __slots__ = ("_buckets", "_fresh", "_least", "_most", "_total")

    def __init__(self) -> None:
        self._buckets: defaultdict[int, int] = defaultdict(int)
        self._fresh: list[float] = []  # not in their buckets yet
        self._total = 0.0
        self._least = inf
        self._most = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self._fresh.append(seconds)
        if len(self._fresh) == _FRESH:
            self._sort()

    def _sort(self) -> defaultdict[int, int]:
        """Put what came into its buckets: many at a time, which costs a third of one by one."""
        buckets, fresh = self._buckets, self._fresh
        if fresh:
            self._total += sum(fresh)
            self._least = min(self._least, *fresh)
            self._most = max(self._most, *fresh)
            for seconds in fresh:
                mantissa, exponent = frexp(seconds if seconds > _LEAST else _LEAST)  # noqa: FURB136
                buckets[_STEPS * exponent + int(mantissa * (2 * _STEPS))] += 1
            fresh.clear()
        return buckets

    def include(self, other: Histogram) -> None:
        """Count all that another one counted."""
        buckets = self._sort()
        for bucket, count in other._sort().items():
            buckets[bucket] += count
        self._total += other._total
        self._least = min(self._least, other._least)
        self._most = max(self._most, other._most)

    @property
    def total(self) -> float:
        """Their sum."""
        self._sort()
        return self._total

    @property
    def least(self) -> float:
        """The shortest; infinite if there were none."""
        self._sort()
        return self._least

    @property
    def most(self) -> float:
        """The longest; 0 if there were none."""
        self._sort()
        return self._most

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self._sort().values())

    @property
    def mean(self) -> float | None:
        """Their mean; None if there were none."""
        return self.total / self.count if self._sort() else None

    def percentile(self, share: float) -> float | None:
        """The time that this share of them, such as 0.99, did not exceed; None if there were none."""
        if not 0 <= _checks.number("share", share) <= 1:
            raise ValueError(f"share must be between 0 and 1, not {_checks.shown(share)}")
        buckets, count = self._sort(), self.count
        rank = max(1, ceil(share * count))
        if rank == 1 and count:
            return self._least
        if rank == count:
            return self._most
        passed = 0
        for bucket in sorted(buckets):
            passed += buckets[bucket]
            if passed >= rank:
                return min(max(_middle(bucket), self._least), self._most)
        return None

    def buckets(self) -> list[tuple[float, float, int]]:
        """The buckets that are not empty, in order: from, to, and how many."""
        return [(*_edges(bucket), count) for bucket, count in sorted(self._sort().items())]

    def to_dict(self) -> dict[str, float | int | None]:
        """Count, sum, mean, least, most and the usual percentiles."""
        some = bool(self._sort())
        return {
            "count": self.count,
            "total": self.total,
            "mean": self.mean,
            "least": self.least if some else None,
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p95": self.percentile(0.95),
            "p99": self.percentile(0.99),
            "most": self.most if some else None,
        }

    def __repr__(self) -> str:
        if not self._sort():
            return "<Histogram: none>"
        half, most = self.percentile(0.5), self.percentile(0.99)
        return f"<Histogram of {self.count}: median {half:.3g} s, p99 {most:.3g} s>"


def _edges(bucket: int) -> tuple[float, float]:
    exponent, step = divmod(bucket - _STEPS, _STEPS)
    scale = 2.0**exponent / (2 * _STEPS)
    return (step + _STEPS) * scale, (step + _STEPS + 1) * scale


def _middle(bucket: int) -> float:
    low, high = _edges(bucket)
    return (low + high) / 2
