"""Writes seconds, bytes and counts the way people read them."""

from __future__ import annotations

__all__ = ["agreed", "counted", "how_far", "lasting", "seconds", "size"]


def seconds(value: float) -> str:
    """Seconds with three digits or so, small ones as milliseconds or microseconds."""
    if value >= 1:
        return f"{value:,.1f} s" if value >= 10 else f"{value:.2f} s"
    if value >= 0.01 or not value:
        return f"{1000 * value:.0f} ms"
    return f"{1000 * value:.1f} ms" if value >= 0.001 else f"{1_000_000 * value:.0f} µs"


def lasting(value: float) -> str:
    """Seconds, with three digits if they are few: how long something lasts, within a sentence."""
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


def size(count: float) -> str:
    """Bytes in units of a thousand."""
    for unit in ("B", "kB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} MB"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun."""
    return f"{count:,} {agreed(count, noun, plural or noun + 's')}"


def agreed(count: int, one: str, several: str) -> str:
    """The word that agrees with the count: `agreed(1, "waits", "wait")`."""
    return one if count == 1 else several


def how_far(
    ended: int,
    total: int | None,
    lasted: float,
    *,
    failed: int = 0,
    cancelled: int = 0,
    over: bool = False,
) -> str:
    """How many are done, of how many, how fast they end, and how long the others will take at that
    rate. What ended otherwise is told apart.
    """
    missed = {"failed": failed, "cancelled": cancelled}
    done = f"{ended - failed - cancelled:,}"
    parts = [done if total is None else f"{done}/{total:,}"]
    if any(missed.values()):
        parts[0] += " done"
        parts += [f"{count:,} {word}" for word, count in missed.items() if count]
    if over:
        parts.append(f"in {_while(lasted, 1)}")
    if ended and lasted > 0:
        parts.append(
            f"{ended / lasted:,.0f}/s" if ended >= 100 * lasted else f"{ended / lasted:.3g}/s"
        )
        if total is not None and not over:
            parts.append(f"{_while((total - ended) * lasted / ended)} left")
    return ", ".join(parts)


def _while(lasted: float, digits: int = 0) -> str:
    if lasted < 60:
        return f"{lasted:.{digits}f} s"
    minutes, rest = divmod(round(lasted), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
