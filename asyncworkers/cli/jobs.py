"""`asyncworkers jobs`: list, show, cancel, retry and purge what is stored."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import click

from asyncworkers import JobState
from asyncworkers.cli.documents import brief, full, progress, trouble
from asyncworkers.cli.options import (
    Filters,
    agreed,
    filter_options,
    json_option,
    store_option,
    use,
    yes_option,
)
from asyncworkers.cli.output import Column, counted, escaped, print_json, print_table, span
from asyncworkers.store.protocol import (
    LIMIT,
    Store,
    StoredJob,
    Where,
    error_text,
)

__all__ = ["jobs"]

T = TypeVar("T")

UNFINISHED = (JobState.SCHEDULED, JobState.QUEUED, JobState.RUNNING)
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
DEAD = (JobState.FAILED, JobState.CANCELLED)

PAGE = 500
"""Jobs that are read at once."""

COLUMNS = (
    Column("id"),
    Column("name"),
    Column("queue"),
    Column("state"),
    Column("attempt", number=True),
    Column("age", number=True),
    Column("what", long=True),
)

ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...")
all_option = click.option("--all", "everything", is_flag=True, help="All there are, no filter.")


@click.group()
def jobs() -> None:
    """List, show, cancel, retry and purge stored jobs.

    Filters narrow each other: all that are given must hold. One that is given several times lists
    alternatives, but for --tag: a job must have all of the tags.
    """


# ---- looking


@jobs.command("list")
@store_option
@filter_options(*JobState)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000_000),
    default=50,
    show_default=True,
    metavar="N",
    help="No more than so many.",
)
@json_option
def list_jobs(*, store: Store, limit: int, as_json: bool, **chosen: Any) -> int:
    """List jobs, newest first, without their arguments.

    Exits with 1 if there are none.
    """
    where = Filters.chosen(**chosen).where()

    async def look(store: Store) -> int:
        rows: list[Sequence[str]] = []
        seen, after = 0, None
        while seen < limit:
            page = await store.find(where, limit=min(PAGE, limit - seen), after=after)
            seen, after = seen + len(page.records), page.after
            if as_json:
                for job in page.records:
                    print_json(brief(job))
            else:
                rows += [_row(job) for job in page.records]
            if after is None:
                break
        if rows:
            print_table(COLUMNS, rows)
        if not seen:
            click.echo("No jobs.", err=True)
        elif after is not None:
            click.echo(f"There are more than these {seen:,}: --limit shows them.", err=True)
        return 0 if seen else 1

    return use(store, look)


def _row(job: StoredJob) -> tuple[str, ...]:
    return (
        job.id,
        job.name,
        job.queue,
        str(job.state),
        str(job.attempt),
        span(time.time() - job.submitted),
        _what(job),
    )


def _what(job: StoredJob) -> str:
    """The one thing worth knowing of a job at a glance."""
    if job.state is JobState.RUNNING:
        return "is to be cancelled" if job.cancelling is not None else progress(job)
    if job.state is JobState.SCHEDULED:
        retried = f", after {trouble(job)}" if job.error else ""
        return f"due in {span(job.due - time.time())}{retried}"
    return trouble(job)


@jobs.command()
@store_option
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reveal", is_flag=True, help="Show also values that sound secret.")
@json_option
def show(*, store: Store, ids: tuple[str, ...], reveal: bool, as_json: bool) -> int:
    """Show all that is stored of jobs: arguments, result, error and traceback.

    Values whose names sound secret, as password or token, are masked; those that were given by
    place have no names here. Exits with 1 if one of the jobs is not there.
    """

    async def look(store: Store) -> int:
        missing = 0
        for ident in ids:
            (job,) = await store.get([ident])
            if job is None:
                missing += 1
                click.echo(f"There is no job {escaped(ident)}.", err=True)
            elif as_json:
                print_json(full(job, reveal=reveal))
            else:
                _tell(full(job, reveal=reveal))
        return 1 if missing else 0

    return use(store, look)


def _tell(document: dict[str, Any]) -> None:
    """Print all of a job, one thing a line; what has no value is left out."""
    error = document.pop("error")
    for name, value in document.items():
        if value not in (None, [], False):
            click.echo(f"{name.replace('_', ' ') + ':':<12} {_text(value)}")
    if error is not None:
        click.echo(f"{'error:':<12} {_text(error['type'])}: {_text(error['message'])}")
        for line in (*error["notes"], *error["traceback"].splitlines()):
            click.echo(f"  {_text(line)}")
    click.echo()


def _text(value: Any) -> str:
    return escaped(value if isinstance(value, str) else repr(value))


# ---- steering


@jobs.command()
@store_option
@ids_argument
@filter_options(*UNFINISHED)
@all_option
@click.option(
    "--reason", default="asked on the command line", show_default=True, help="Why, for the record."
)
@yes_option
@json_option
def cancel(
    *, store: Store, everything: bool, reason: str, yes: bool, as_json: bool, **chosen: Any
) -> int:
    """Cancel jobs: those that wait at once, those that run as soon as their worker hears of it.

    Asks first, unless the jobs are named by id. Exits with 1 if nothing was cancelled, or not all
    that were named.
    """
    where = _named(Filters.chosen(**chosen), everything).where(*UNFINISHED)
    error = error_text("JobCancelled", reason)
    done = _steer(store, where, "Cancel", yes, lambda store, part: store.cancel(part, error))
    reached = {one.id: one for batch in done.answers for one in batch}
    running = sum(one.running for one in reached.values())
    if as_json:
        for one in reached.values():
            print_json({"id": one.id, "running": one.running})
    elif done.agreed:
        click.echo(f"{counted(len(reached) - running, 'job')} cancelled.")
        if running:
            click.echo(f"{counted(running, 'running job')} asked to stop.")
    return done.exit_code(len(reached))


@jobs.command()
@store_option
@ids_argument
@filter_options(*DEAD)
@all_option
@yes_option
@json_option
def retry(*, store: Store, everything: bool, yes: bool, as_json: bool, **chosen: Any) -> int:
    """Run dead jobs again, as if they had never run: those that failed, or were cancelled.

    Without ids only those that failed are meant, unless --state says otherwise. One whose unique key
    another job holds stays dead. Asks first, unless the jobs are named by id. Exits with 1 if nothing
    was retried, or not all that were named.
    """
    filters = _named(Filters.chosen(**chosen), everything)
    where = filters.where(*(DEAD if filters.ids else (JobState.FAILED,)))
    done = _steer(store, where, "Retry", yes, lambda store, part: store.retry(part))
    retried = [ident for batch in done.answers for ident in batch]
    if as_json:
        for ident in retried:
            print_json({"id": ident})
    elif done.agreed:
        click.echo(f"{counted(len(retried), 'job')} put back in line.")
    return done.exit_code(len(retried))


@jobs.command()
@store_option
@ids_argument
@filter_options(*ENDED)
@all_option
@yes_option
@json_option
def purge(*, store: Store, everything: bool, yes: bool, as_json: bool, **chosen: Any) -> int:
    """Forget ended jobs, with their results and errors, before their time.

    Asks first, unless the jobs are named by id. Exits with 1 if nothing was purged, or not all that
    were named.
    """
    where = _named(Filters.chosen(**chosen), everything).where(*ENDED)
    done = _steer(store, where, "Purge", yes, lambda store, part: store.purge(part))
    number = sum(done.answers)
    if as_json:
        print_json({"purged": number})
    elif done.agreed:
        click.echo(f"{counted(number, 'job')} purged.")
    return done.exit_code(number)


class Steered(NamedTuple, Generic[T]):
    """What came of steering: the store's answers, and whether all that were named were reached."""

    answers: list[T]
    agreed: bool = True
    all_reached: bool = True

    def exit_code(self, reached: int) -> int:
        """The exit code if so many jobs were reached."""
        return 0 if reached and self.all_reached else 1


def _named(filters: Filters, everything: bool) -> Filters:
    """The filters, if they say anything; nobody means all jobs by saying nothing."""
    if everything and filters.any:
        raise click.UsageError("--all means all jobs: it goes with neither ids nor filters.")
    if not (everything or filters.any):
        raise click.UsageError("Which jobs? Name ids, filters, or --all.")
    return filters


def _steer(
    store: Store,
    where: Where,
    verb: str,
    yes: bool,
    act: Callable[[Store, Where], Awaitable[T]],
) -> Steered[T]:
    """Ask, if there is something to ask, and do it, portion by portion."""
    if not yes and where.ids is None:
        number = sum(use(store, lambda store: store.tally(where)).queues.values())
        if number and not agreed(f"{verb} {counted(number, 'job')}?"):
            return Steered([], agreed=False)

    async def work(store: Store) -> Steered[T]:
        left_alone = await _left_alone(store, where)
        for complaint in left_alone:
            click.echo(complaint, err=True)
        answers = [await act(store, part) for part in await _portions(store, where)]
        return Steered(answers, all_reached=not left_alone)

    return use(store, work)


async def _left_alone(store: Store, where: Where) -> list[str]:
    """What is to be said of the jobs that are named but not in a state to do this to."""
    found = zip(where.ids or (), await store.get(where.ids or ()), strict=True)
    return [
        f"There is no job {escaped(ident)}."
        if job is None
        else f"Job {escaped(ident)} is {job.state}: left as it is."
        for ident, job in found
        if job is None or job.state not in (where.states or ())
    ]


async def _portions(store: Store, where: Where) -> list[Where]:
    """The same jobs in as many calls as it takes, for a call reaches no more than LIMIT of them.

    How many calls is settled first: while workers go on, a retried job may be dead again at once.
    """
    if where.ids is not None:
        starts = range(0, len(where.ids), LIMIT)
        return [where._replace(ids=where.ids[start : start + LIMIT]) for start in starts]
    number = sum((await store.tally(where)).queues.values())
    return [where] * math.ceil(number / LIMIT)
