"""A process that works on a SQLite store until it is killed; run by test_crashes.

It writes a line to the file it is given for whatever must be known after its death: `leased`,
`began` and `settled`, each with the job's id and the token. Lines are short and appended, so they
are written whole.
"""

import asyncio
import os
import sys

from asyncworkers.store import Settlement, Submission, Want
from asyncworkers.store.sqlite import SqliteStore


def note(diary, word, one):
    """Write a line."""
    os.write(diary, f"{word} {one.id} {one.token}\n".encode())


async def submit_forever(store, diary, name):
    """Submit jobs, and note each once it is accepted."""
    number = 0
    while True:
        new = Submission(f"{name}-{number}", "q", "f", "[[],{}]", once=number % 5 == 0)
        await store.submit([new])
        os.write(diary, f"accepted {new.id} 0\n".encode())
        number += 1


async def work(store, diary):
    """Lease, begin and settle jobs, with some leased ahead; bring back what others left."""
    while True:
        await store.maintain()
        leases = await store.lease([Want("q", 3, 4)])
        if not leases:
            await store.wait_ready(["q"], 0.2)
            continue
        for lease in leases:
            note(diary, "leased", lease)
            store.started(lease)
            note(diary, "began", lease)
            await asyncio.sleep(0)
        last = leases.pop()  # this one writes a row of its own, in the commit that settles it
        effect = store.transaction()
        await asyncio.wrap_future(effect.begun)
        await effect.connection.execute("INSERT INTO effects VALUES (?)", (last.id,))
        await asyncio.sleep(0)
        took = await effect.settle(Settlement.complete(last, "1"))
        note(diary, "settled" if took else "refused", last)
        accepted = await store.settle([Settlement.complete(lease, "2") for lease in leases])
        for lease, took in zip(leases, accepted, strict=True):
            note(diary, "settled" if took else "refused", lease)


async def main(path, log, role, name):
    """Play the role."""
    diary = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    store = SqliteStore(path, ttl=1.0 if role == "zombie" else 30.0)
    await store.open({"f"} if role != "submit" else ())
    os.write(diary, b"ready - 0\n")
    if role == "submit":
        await submit_forever(store, diary, name)
    elif role == "work":
        await work(store, diary)
    elif role == "hold":  # one begun, one not, and nothing more
        leases = await store.lease([Want("q", 2)])
        store.started(leases[0])
        note(diary, "began", leases[0])
        await asyncio.sleep(1_000)
    elif (
        role == "zombie"
    ):  # two begun, kept for as long as they are its own, and settled even after that
        leases = await store.lease([Want("q", 2)])
        for lease in leases:
            store.started(lease)
        note(diary, "began", leases[0])
        while not store.renew().lost:
            await asyncio.sleep(0.05)
        accepted = await store.settle([Settlement.complete(lease, '"zombie"') for lease in leases])
        for lease, took in zip(leases, accepted, strict=True):
            note(diary, "settled" if took else "refused", lease)
        await asyncio.sleep(1_000)


asyncio.run(main(*sys.argv[1:]))
