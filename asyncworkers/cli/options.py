"""What several commands understand alike: the store, which jobs, since when, and whether to ask."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from asyncworkers import JobState, StoreUnavailable
from asyncworkers.cli.output import escaped
from asyncworkers.store.address import make_store
from asyncworkers.store.protocol import Store, Where

__all__ = [
    "Filters",
    "address",
    "agreed",
    "filter_options",
    "json_option",
    "seconds",
    "store_option",
    "there",
    "use",
    "yes_option",
]

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


# ---- the store


def address(url: str) -> Store:
    """The store of a URL, not opened yet."""
    if url == "memory:":
        raise click.BadParameter("jobs in memory are their process' own: nobody else can see them.")
    try:
        return make_store(url)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


store_option = click.option(
    "--store",
    "store",
    type=address,
    envvar="ASYNCWORKERS_STORE",
    show_envvar=True,
    required=True,
    metavar="URL",
    help="Where the jobs are, as in sqlite:///jobs.db.",
)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print a JSON object a line, for programs."
)

yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def there(store: Store) -> Store:
    """The store, if there is one at its address: looking at a store should not make one."""
    from asyncworkers.store.sqlite import SqliteStore, care

    if isinstance(store, SqliteStore) and not care.version(store.path):
        lacking = "there is no store in" if store.path.exists() else "there is no file"
        raise StoreUnavailable(
            f"{lacking} {_shown(store.path)}: `asyncworkers store init` makes one"
        )
    return store


def use(store: Store, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open a store that is there, do something with it, and close it."""
    there(store)

    async def main() -> T:
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def _shown(path: Path) -> str:
    return escaped(str(path))


# ---- which jobs


def _moment(text: str) -> float:
    """A date, or an age, as Unix seconds."""
    age = AGE.fullmatch(text)
    try:
        if age:
            return time.time() - float(age[1]) * SECONDS[age[2]]
        return datetime.fromisoformat(text).timestamp()  # without a zone it is local time
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is neither an age, as 90s, 15m, 2h, 3d or 1w, "
            "nor a date, as 2026-11-25 or 2026-11-25T09:30+01:00."
        ) from None


def seconds(least: float, most: float) -> Callable[[str], float]:
    """A reader of seconds between two bounds, for an option; also `nan` is out of them."""

    def read(text: str) -> float:
        with suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise click.BadParameter(f"{text!r} is not a number of seconds from {least:g} to {most:g}.")

    return read


class Filters(NamedTuple):
    """Which jobs were asked for."""

    ids: tuple[str, ...]
    states: tuple[JobState, ...]
    queues: tuple[str, ...]
    names: tuple[str, ...]
    tags: tuple[str, ...]
    before: float | None
    after: float | None

    @classmethod
    def chosen(
        cls,
        *,
        ids: tuple[str, ...] = (),
        state: tuple[str, ...],
        queue: tuple[str, ...],
        name: tuple[str, ...],
        tag: tuple[str, ...],
        before: float | None,
        after: float | None,
    ) -> Filters:
        """From what `filter_options`, and an argument `ids`, have read."""
        states = tuple(JobState(one) for one in state)
        return cls(tuple(dict.fromkeys(ids)), states, queue, name, tag, before, after)

    @property
    def any(self) -> bool:
        """Whether anything was asked for at all."""
        return any(one not in ((), None) for one in self)

    def where(self, *states: JobState) -> Where:
        """The same for a store; `states` count if none were asked for."""
        return Where(
            ids=self.ids or None,
            queues=self.queues or None,
            names=self.names or None,
            states=self.states or states or None,
            tags=self.tags,
            submitted_before=self.before,
            submitted_after=self.after,
        )


def filter_options(*states: JobState) -> Callable[[Command], Command]:
    """Options that say which jobs, with these states to choose from; see `Filters.chosen`."""
    options = [
        click.option(
            "--state",
            multiple=True,
            type=click.Choice([str(one) for one in states]),
            help="In this state; give it again for another.",
        ),
        click.option("--queue", multiple=True, metavar="NAME", help="On this queue, or another."),
        click.option("--name", multiple=True, metavar="NAME", help="Of this function, or another."),
        click.option("--tag", multiple=True, metavar="TAG", help="With this tag, and others."),
        click.option(
            "--before", type=_moment, metavar="WHEN", help="Submitted before: a date, or 2h, 3d."
        ),
        click.option("--after", type=_moment, metavar="WHEN", help="Submitted after."),
    ]

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


# ---- asking


def agreed(question: str) -> bool:
    """Whether to go on, asked on the terminal; a usage error if there is none: scripts say --yes."""
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: say --yes.")
    if click.confirm(question, err=True):
        return True
    click.echo("Nothing was changed.", err=True)
    return False
