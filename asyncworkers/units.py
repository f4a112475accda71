"""Writes seconds, bytes and counts the way people read them."""

from __future__ import annotations

__all__ = ["counted", "seconds", "size"]


def seconds(value: float) -> str:
    """Seconds with three digits or so, small ones as milliseconds or microseconds."""
    if value >= 1:
        return f"{value:,.1f} s" if value >= 10 else f"{value:.2f} s"
    if value >= 0.01 or not value:
        return f"{1000 * value:.0f} ms"
    return f"{1000 * value:.1f} ms" if value >= 0.001 else f"{1_000_000 * value:.0f} µs"


def size(count: float) -> str:
    """Bytes in units of a thousand."""
    for unit in ("B", "kB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} MB"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
