"""`asyncworkers queues`: how the queues of a store stand, and pausing them."""

from __future__ import annotations

from typing import Any

import click

from asyncworkers import Queue
from asyncworkers.cli.options import json_option, store_option, use
from asyncworkers.cli.output import Column, print_json, print_table, span
from asyncworkers.store.protocol import QueueCounts, Store

__all__ = ["queues"]

COLUMNS = (
    Column("queue"),
    Column("state"),
    Column("queued", number=True),
    Column("scheduled", number=True),
    Column("running", number=True),
    Column("failed", number=True),
    Column("oldest", number=True),
)


class _Commands(click.Group):
    """A group that lists if no subcommand is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else "-"
        if first.startswith("-") and first not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Commands)
def queues() -> None:
    """List the queues of a store, pause and resume them.

    `asyncworkers queues` alone lists them.
    """


@queues.command("list")
@store_option
@json_option
def list_queues(*, store: Store, as_json: bool) -> int:
    """List the queues that are paused or have unfinished or failed jobs.

    `oldest` is for how long a job has been due that still waits.
    """
    counts = use(store, lambda store: store.counts())
    if as_json:
        for one in counts:
            print_json(document(one))
    elif counts:
        print_table(COLUMNS, [row(one) for one in counts])
    else:
        click.echo("No queue has unfinished or failed jobs.", err=True)
    return 0


def document(counts: QueueCounts) -> dict[str, Any]:
    """A queue for programs."""
    return {
        "queue": counts.queue,
        "paused": counts.paused,
        "queued": counts.queued,
        "scheduled": counts.scheduled,
        "running": counts.running,
        "failed": counts.failed,
        "oldest": counts.oldest,
    }


def row(counts: QueueCounts) -> list[str]:
    """A queue for people."""
    numbers = (counts.queued, counts.scheduled, counts.running, counts.failed)
    state = "paused" if counts.paused else "open"
    return [counts.queue, state, *(f"{number:,}" for number in numbers), span(counts.oldest)]


@queues.command()
@store_option
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@json_option
def pause(*, store: Store, names: tuple[str, ...], as_json: bool) -> int:
    """Start no more jobs of these queues; what runs runs on, and jobs are still accepted."""
    return _set_paused(store, names, True, as_json)


@queues.command()
@store_option
@click.argument("names", nargs=-1, required=True, metavar="QUEUE...")
@json_option
def resume(*, store: Store, names: tuple[str, ...], as_json: bool) -> int:
    """Start jobs of these queues again."""
    return _set_paused(store, names, False, as_json)


def _set_paused(store: Store, names: tuple[str, ...], paused: bool, as_json: bool) -> int:
    for name in names:
        try:
            Queue(name)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="QUEUE") from None

    async def work(store: Store) -> set[str]:
        for name in names:
            await store.pause(name, paused)
        return {
            one.queue
            for one in await store.counts()
            if one.queued or one.scheduled or one.running or one.failed
        }

    there = use(store, work)
    for name in names:
        if as_json:
            print_json({"queue": name, "paused": paused})
        else:
            click.echo(f"Queue {name} is {'paused' if paused else 'open'}.")
        if name not in there:  # it may be to come, or a slip
            click.echo(f"No unfinished or failed job is on queue {name}.", err=True)
    return 0
