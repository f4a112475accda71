"""How many jobs of each queue of a store end in a second, from totals that are looked at again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

__all__ = ["BARS", "Rates", "rates_shown"]

BARS: Final = 60
"""Looks that are remembered: what a sparkline shows."""


class Rates:
    """The last rates of each queue, oldest first."""

    def __init__(self) -> None:
        self._rates: dict[str, deque[float]] = {}
        self._at: float | None = None

    def add(self, ended: Mapping[str, float], at: float) -> None:
        """So many jobs have ended since the look before; the first look only begins to count."""
        before, self._at = self._at, at
        if before is None or at <= before:
            return
        for queue in {*self._rates, *ended}:
            rates = self._rates.setdefault(queue, deque([0.0] * BARS, BARS))
            rates.append(max(0.0, ended.get(queue, 0.0)) / (at - before))
        for queue in [
            name for name, rates in self._rates.items() if name not in ended and not any(rates)
        ]:
            del self._rates[queue]

    def of(self, queue: str) -> dict[str, Any]:
        """The rate now, over the last few looks, and those before it."""
        return rates_shown(self._rates.get(queue, ()))


def rates_shown(rates: Iterable[float]) -> dict[str, Any]:
    """The rate now, the mean of the last five, and those before it; of none nothing."""
    history = list(rates)
    last = history[-5:]
    return {
        "rate": sum(last) / len(last) if last else 0.0,
        "history": [round(one, 2) for one in history],
    }
