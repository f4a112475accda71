"""Bridges that are broken in one way each; as a program, has one of them checked, and says what it says."""

import asyncio
import importlib
import os
import pickle
import runpy
import sys
from pathlib import Path
from typing import ClassVar

from asyncworkers import Failed, Queue, Succeeded
from asyncworkers.testing import bridge_checks, check_name

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "remote.py"))
CommandBridge = EXAMPLE["CommandBridge"]


class ValueLost(CommandBridge):
    async def run(self, work):
        await super().run(work)
        return Succeeded(None)


class NamesForgotten(CommandBridge):
    async def run(self, work):
        work.kwargs = {}
        return await super().run(work)


class ErrorIsAValue(CommandBridge):
    async def run(self, work):
        end = await super().run(work)
        return Succeeded(end.error) if isinstance(end, Failed) else end


class ErrorIsRaised(CommandBridge):
    async def run(self, work):
        end = await super().run(work)
        if isinstance(end, Failed):
            raise end.error
        return end


class UnpicklableIsRaised(CommandBridge):
    async def run(self, work):
        pickle.dumps((work.function, work.args, work.kwargs))
        return await super().run(work)


class DeathIsAnError(CommandBridge):
    async def run(self, work):
        try:
            return await super().run(work)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            return Failed(RuntimeError(str(error)))


class CallRunsOn(CommandBridge):
    """Forgets the call when it is cancelled, rather than stop it."""

    async def run(self, work):
        task = asyncio.ensure_future(super().run(work))
        return await asyncio.shield(task)


class NothingIsKilled(CommandBridge):
    def kill(self):
        pass


class OneForAll(CommandBridge):
    """All bridges share a place in which there is room for one process."""

    place: ClassVar = [None]
    process = property(lambda self: self.place[0], lambda self, it: self.place.__setitem__(0, it))


class NeverReadyAgain(CommandBridge):
    used = False

    async def run(self, work):
        if self.used:
            raise RuntimeError("used up")
        self.used = True
        return await super().run(work)


class LeavesAFile(CommandBridge):
    async def start(self):
        self.file = os.open(os.devnull[:4], os.O_RDONLY)


async def main(broken, name):
    """Run the check over the bridge, and print the note on what it raises."""
    module = importlib.import_module("asyncworkers.testing.check_bridge")
    module.SOON, module.PATIENCE = 1.0, 15.0
    (check,) = [one for one in bridge_checks() if check_name(one) == name]
    try:
        await check(Queue("broken", bridge=globals()[broken]))
    except BaseException as error:
        print(*error.__notes__, sep="\n", flush=True)
        os._exit(1)  # with whatever is left


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
