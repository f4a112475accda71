"""A store with a job in every state, and the command line to look at it with."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from asyncworkers import cli
from asyncworkers.store.codec import encode_error
from asyncworkers.store.protocol import Settlement, Submission, Want, Where
from asyncworkers.store.sqlite import SqliteStore

ESCAPE = "\x1b]0;pwned\x07"


def error(message):
    """Return an error as it is stored, with a traceback."""
    try:
        raise ValueError(message)
    except ValueError as raised:
        return encode_error(raised)


async def fill(path):
    """Make a store with jobs of every state on two queues."""
    store = SqliteStore(path)
    await store.open({"send", "fetch"})

    def new(ident, name, queue, **fields):
        given = {"args": '[["Ada"],{"password":"hunter2","size":3}]', **fields}
        return Submission(ident, queue, name, **given)

    await store.submit([new("done", "send", "mail"), new("dead", "send", "mail", tags=("red",))])
    good, bad = await store.lease([Want("mail", 9)])
    store.started(good)
    store.started(bad)
    await store.settle(
        [
            Settlement.complete(good, '{"sent":2,"token":"t0k3n"}'),
            Settlement.fail(bad, error(f"no such host {ESCAPE}")),
        ]
    )
    await store.submit([new("runs", "fetch", "web")])
    (running,) = await store.lease([Want("web", 1)])
    store.started(running)
    await asyncio.to_thread(store.renew, [(running, '[3,9,"page"]')])
    await store.submit(
        [
            new("waits", "fetch", "web", priority=5, tags=("red", "new")),
            new("later", "fetch", "web", delay=3600),
            new("gone", "fetch", "web"),
        ]
    )
    await store.cancel(Where(ids=("gone",)), error("not wanted"))
    return store


@pytest.fixture
def url(tmp_path):
    """The URL of a store with the jobs `done dead runs waits later gone`, while a worker runs one."""
    with asyncio.Runner() as runner:
        store = runner.run(fill(tmp_path / "jobs.db"))
        yield f"sqlite:///{tmp_path}/jobs.db"
        runner.run(store.close())


@pytest.fixture
def run(capsys):
    """Run a command line; gives its exit code, what it printed, the same as JSON, and its errors."""

    def call(*arguments):
        code = cli.main([str(one) for one in arguments])
        printed = capsys.readouterr()

        def documents():
            return [json.loads(line) for line in printed.out.splitlines()]

        return SimpleNamespace(
            code=code,
            out=printed.out,
            err=printed.err,
            lines=printed.out.splitlines(),
            documents=documents,
            ids=lambda: [one["id"] for one in documents()],
        )

    return call
