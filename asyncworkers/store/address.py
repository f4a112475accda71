"""The store that a URL names: `sqlite:///jobs.db`, `sqlite:////var/lib/app/jobs.db`, `memory:`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from asyncworkers import _checks
from asyncworkers.store.protocol import Store

__all__ = ["make_store"]

ACCEPTED = (
    "sqlite:///jobs.db (from the current directory), sqlite:////var/lib/app/jobs.db (absolute) "
    "or memory:"
)


def make_store(url: str) -> Store:
    """Make the store that a URL names; it is not opened yet, and nothing is touched.

    - `sqlite:///jobs.db`: a SQLite file, from the current directory; with four slashes from the
      root. What would mean something in a URL is written as one does there: `%20`, `%3F`, `%23`.
      Settings of `SqliteStore` follow: `sqlite:///jobs.db?durability=process&ttl=10`.
    - `memory:`: jobs that end with the process, for tests.

    Raises TypeError for what is no text, ValueError for a URL that names no store or a setting
    that it does not have.
    """
    if not _checks.text("store", url).isprintable():  # which urlsplit would silently drop
        raise _refusal(url, "holds what is not printable: write it as %0A and the like")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _refusal(url, f"is no URL; accepted are {ACCEPTED}") from None
    if parts.scheme == "sqlite":
        return _sqlite(url, parts)
    if url == "memory:":
        from asyncworkers.store.memory import MemoryStore

        return MemoryStore()
    raise _refusal(url, f"must be {ACCEPTED}")


def _sqlite(url: str, parts: SplitResult) -> Store:
    from asyncworkers.store.sqlite import SqliteStore

    path = unquote(parts.path)[1:]
    if not url.startswith("sqlite:///") or path in ("", "/", ":memory:") or parts.fragment:
        raise _refusal(url, f"names no file; accepted are {ACCEPTED}")
    return SqliteStore(path, **_settings(url, parts.query))


def _settings(url: str, query: str) -> dict[str, Any]:
    """The settings behind the question mark, as they would be given to SqliteStore."""
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise _refusal(url, "has settings that are not written name=value&name=value") from None
    for name, text in pairs:
        if name not in _READERS:
            raise _refusal(url, f"has no setting {name!r}: {_checks.nearest(name, _READERS)}")
        if name in given:
            raise _refusal(url, f"has the setting {name!r} twice")
        try:
            given[name] = _READERS[name](text)
        except ValueError:
            raise _refusal(url, f"has the setting {name}={text!r}, which is no number") from None
    return given


_READERS: dict[str, Callable[[str], Any]] = {
    "durability": str,
    "ttl": float,
    "busy": float,
    "losses": int,
    "keep": float,
    "keep_dead": float,
    "history": int,
}


def _refusal(url: str, why: str) -> ValueError:
    return ValueError(f"store {_checks.shown(_masked(url))} {why}")


def _masked(url: str) -> str:
    """A URL that may be shown: whatever could be a password in it is not."""
    url = re.sub(r"(//[^/?#]*?:)[^/?#]*@", r"\1***@", url)
    return re.sub(r"(?i)((?:password|passwd|pwd|secret|token|key)=)[^&#]*", r"\1***", url)
