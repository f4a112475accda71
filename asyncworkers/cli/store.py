"""`asyncworkers store`: make, check, migrate and vacuum the file of a store."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from asyncworkers.cli.options import json_option, store_option, there
from asyncworkers.cli.output import counted, escaped, print_json
from asyncworkers.store.protocol import Store
from asyncworkers.store.sqlite import SqliteStore, care, schema

__all__ = ["store"]


@click.group()
def store() -> None:
    """Make, check, migrate and vacuum the file of a store."""


def _in_file(store: Store) -> SqliteStore:
    if not isinstance(store, SqliteStore):
        raise click.UsageError("Only a store in a SQLite file has something to look after.")
    return store


@store.command()
@store_option
@json_option
def init(*, store: Store, as_json: bool) -> int:
    """Make a store, readable by its owner only; one that is there already is left as it is."""
    one = _in_file(store)
    before = care.version(one.path)

    async def make() -> None:
        await one.open()
        await one.close()

    asyncio.run(make())
    _say(
        as_json,
        {"path": str(one.path), "made": not before, "schema": schema.VERSION},
        f"{_path(one)} {'was there already' if before else 'is made'}, "
        f"with schema {schema.VERSION}.",
    )
    return 0


@store.command()
@store_option
@click.option("--quick", is_flag=True, help="Leave out what takes long: checksums and indexes.")
@json_option
def check(*, store: Store, quick: bool, as_json: bool) -> int:
    """Look for damage, in the file's structure and in every job; workers may go on meanwhile.

    Changes nothing. Exits with 1 if there is damage, or if the schema is not of this version.
    """
    one = _in_file(store)
    there(one)
    health = care.check(one.path, quick=quick)
    sound = not health.faults and health.schema == schema.VERSION
    if as_json:
        document = {"path": str(one.path), "sound": sound, "expected_schema": schema.VERSION}
        print_json(document | health._asdict())
        return 0 if sound else 1
    click.echo(f"{_path(one)}: {health.size:,} bytes, and {health.log:,} in its log")
    click.echo(f"schema   {health.schema}, this asyncworkers has {schema.VERSION}")
    dead = f", {health.dead} dead and not yet struck off" if health.dead else ""
    click.echo(f"workers  {health.alive} alive{dead}")
    states = [f"{number:,} {state}" for state, number in health.jobs.items() if number]
    click.echo(f"jobs     {', '.join(states) or 'none'}")
    for fault in health.faults:
        click.echo(f"damage   {escaped(fault)}")
    if health.schema < schema.VERSION:
        click.echo("`asyncworkers store migrate` brings it to this version.")
    if sound:
        click.echo("A quick look finds it sound." if quick else "It is sound.")
    return 0 if sound else 1


@store.command()
@store_option
@json_option
def migrate(*, store: Store, as_json: bool) -> int:
    """Bring the tables to the version of this asyncworkers, in one transaction.

    Workers and commands that open the store do so too; this is for doing it before they come.
    """
    one = _in_file(store)
    there(one)
    before = care.migrate(one.path)
    _say(
        as_json,
        {"path": str(one.path), "from": before, "to": schema.VERSION},
        f"{_path(one)} has schema {schema.VERSION}"
        + (", as before." if before == schema.VERSION else f"; it had {before}."),
    )
    return 0


@store.command()
@store_option
@click.option("--force", is_flag=True, help="Also while workers live: they cannot write meanwhile.")
@json_option
def vacuum(*, store: Store, force: bool, as_json: bool) -> int:
    """Give back to the disk the room that forgotten jobs left, by writing the file anew.

    Needs room for a second copy meanwhile. Refuses, with 1, while workers have the store open.
    """
    one = _in_file(store)
    there(one)
    before = one.path.stat().st_size
    care.vacuum(one.path, force=force)
    after = one.path.stat().st_size
    _say(
        as_json,
        {"path": str(one.path), "before": before, "after": after},
        f"{_path(one)} had {counted(before, 'byte')} and has {after:,}.",
    )
    return 0


def _path(store: SqliteStore) -> str:
    return escaped(str(store.path))


def _say(as_json: bool, document: dict[str, Any], sentence: str) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(sentence)
