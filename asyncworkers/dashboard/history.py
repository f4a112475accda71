"""What a job's page says of its attempts and its log, and plainly what is not known here of them."""

from __future__ import annotations

from typing import Any, Final

from asyncworkers.units import agreed

__all__ = ["tell_history"]

_OUTCOMES: Final = {"succeeded": "Succeeded", "failed": "Failed", "cancelled": "Cancelled"}
_DECISIONS: Final = {"succeeded": "Complete", "failed": "Fail", "cancelled": "Cancel"}

LISTED: Final = 3
"""Attempts that are named one by one, or stretches of them; of more it is said that there are."""


def tell_history(
    document: dict[str, Any],
    attempts: list[dict[str, Any]],
    log: dict[str, Any] | None,
    *,
    here: bool = False,
) -> dict[str, Any]:
    """Add to a job's document the attempts that have ended and the log, as far as they are known, and
    what is not. `log` is None where no job's log is heard of, `here` whether the job runs in this process.
    """
    stored, state = document["stored"], document["state"]
    running = state == "running"
    last = document["attempt"] - running  # that has ended
    known = {one["attempt"] for one in attempts}
    elsewhere = stored and (
        log is None or running > here or not known.issuperset(range(1, last + 1))
    )
    if stored and last not in known:
        attempts = [*attempts, *_kept_in_store(document, last)]
        known = {one["attempt"] for one in attempts}
    missing = [number for number in range(1, last + 1) if number not in known]
    document["attempts"] = attempts
    document["attempts_note"] = _missing(missing, stored=stored) if missing else None
    document["log"] = log or {"lines": [], "dropped": 0}
    document["log_note"] = (
        _unheard(running=running > here, all_of_it=log is None) if elsewhere else None
    )
    return document


def _kept_in_store(document: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The last attempt, of which the store knows when it began and how the job ended with it."""
    started, ended, state = document["started"], document["ended"], document["state"]
    if state not in _OUTCOMES or None in (started, ended) or number < 1:
        return []
    return [
        {
            "attempt": number,
            "worker": None,
            "started": started,
            "seconds": max(0.0, ended - started),
            "outcome": _OUTCOMES[state],
            "decision": _DECISIONS[state],
            "error": document["error"],
        }
    ]


def _missing(numbers: list[int], *, stored: bool) -> str:
    """Which attempts are not listed, and why."""
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1][1:] = [number]
        else:
            stretches.append([number])
    named = [" to ".join(f"{one:,}" for one in stretch) for stretch in stretches[:LISTED]]
    if len(stretches) > LISTED:
        named.append("others")
    which = " and ".join([", ".join(named[:-1]), named[-1]] if named[1:] else named)
    several = len(numbers)
    attempts, are = agreed(several, "Attempt", "Attempts"), agreed(several, "is", "are")
    they, ended = agreed(several, "it", "they"), "longer ago than is remembered here"
    if stored:
        return (
            f"{attempts} {which} {are} not known here: {they} ran in another process, or {ended}."
        )
    return f"{attempts} {which} {are} not known any more: {they} ended {ended}."


def _unheard(*, running: bool, all_of_it: bool) -> str:
    """That other processes have the log, or some of it."""
    if all_of_it:
        return (
            "What a job logs is known to the process that runs it, not to the store: "
            "the dashboard of its supervisor shows it."
        )
    if running:
        return "It runs in another process: what it logs is known there, not here."
    return "What the attempts that are not known here have logged is not known here either."
