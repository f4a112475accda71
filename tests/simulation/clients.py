"""Those who give jobs to the supervisor in a simulated run, each in a way of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from jobs import EXPECTED, TENANT, Jobs
from plan import Client, Spec

from asyncworkers import Job, JobState, QueueFull, SupervisorClosed


class Clients(Jobs):
    """Carries out the clients of a plan. Whoever changes their mind is noted as a disturbance."""

    async def _be_client(self, number: int, client: Client) -> None:
        await asyncio.sleep(client.at)
        if number % 2:
            TENANT.set(f"client {number}")
        for spec in client.specs:
            self._tenants[spec.key] = TENANT.get()
        work = asyncio.current_task()
        assert work is not None
        if client.gives_up_after is not None:
            self.loop.call_later(client.gives_up_after, self._give_up, client, work)
        try:
            await getattr(self, f"_by_{client.how}")(client)
        except SupervisorClosed:
            self.refused.update(spec.key for spec in client.specs if spec.key not in self.jobs)
        except EXPECTED:
            self._expect_disturbance(client)  # a map's failure cancels the rest of it
        except QueueFull:
            self.tally["queue full"] += 1

    def _expect_disturbance(self, client: Client) -> None:
        for spec in client.specs:
            self.disturbed.update(each.key for each in spec.family())

    async def _await_jobs(self, client: Client, pairs: list[tuple[Spec, Job[Any]]]) -> None:
        if client.cancels_after is not None and pairs:
            spec, job = pairs[0]
            self.loop.call_later(client.cancels_after, self._cancel, spec, job)
        for spec, job in pairs:
            await self._look_at_end(spec, job)

    def _cancel(self, spec: Spec, job: Job[Any]) -> None:
        if self.supervisor.state not in ("open", "draining"):
            return
        before = job.state
        if job.cancel("disturbed"):
            self._mark("cancel", spec, job.id)
            self.disturbed.update(each.key for each in spec.family())
            self.tally[f"cancelled while {before}"] += 1
            if before is not JobState.RUNNING and not job.done():
                self.wrong(f"cancelled while {before}, {job!r} has not ended")
        elif not job.done():
            self.wrong(f"{job!r} refused to be cancelled")

    async def _look_at_end(self, spec: Spec, awaitable: Awaitable[Any]) -> None:
        try:
            self.seen[spec.key] = await awaitable, None
        except EXPECTED as error:
            self.seen[spec.key] = None, error

    async def _by_submit(self, client: Client) -> None:
        pairs: list[tuple[Spec, Job[Any]]] = []
        try:
            for spec in client.specs:
                pairs.append((spec, await self._submit_for(client, spec)))
        finally:
            await self._await_jobs(client, pairs)

    async def _submit_for(self, client: Client, spec: Spec) -> Job[Any]:
        task = asyncio.current_task()
        assert task is not None
        self._submitting.append((client, task))
        try:
            return await self._submit(spec)
        finally:
            self._submitting.remove((client, task))

    async def _by_nowait(self, client: Client) -> None:
        pairs: list[tuple[Spec, Job[Any]]] = []
        try:
            for spec in client.specs:
                job = self.supervisor.submit_nowait(self.function(spec), spec)
                self._know(spec, job)
                pairs.append((spec, job))
        finally:
            await self._await_jobs(client, pairs)

    async def _by_many(self, client: Client) -> None:
        function = self.function(client.specs[0])
        jobs = await self.supervisor.submit_many(function, client.specs)
        pairs = list(zip(client.specs, jobs, strict=True))
        for spec, job in pairs:
            self._know(spec, job)
        await self._await_jobs(client, pairs)

    async def _by_call(self, client: Client) -> None:
        (spec,) = client.specs
        await self._look_at_end(spec, self.supervisor.call(self.function(spec), spec))

    async def _by_threadsafe(self, client: Client) -> None:
        futures = [
            asyncio.wrap_future(self.supervisor.submit_threadsafe(self.function(spec), spec))
            for spec in client.specs
        ]
        try:
            for spec, future in zip(client.specs, futures, strict=True):
                await self._look_at_end(spec, future)
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    async def _by_list(self, client: Client) -> None:
        found = await self._map(client)
        if found != [spec.key for spec in client.specs]:
            self.wrong(f"map gave {found}")
        for spec in client.specs:
            self.seen[spec.key] = spec.key, None

    async def _by_stream(self, client: Client) -> None:
        await self._read(client, ordered=True)

    async def _by_unordered(self, client: Client) -> None:
        await self._read(client, ordered=False)

    async def _read(self, client: Client, *, ordered: bool, slowly: bool = False) -> None:
        found: list[int] = []
        items = self._items(client) if slowly else None
        async with self._map(client, ordered=ordered, items=items) as stream:
            async for key in stream:
                found.append(key)
                self.seen[key] = key, None
                if len(found) > client.reads:
                    self._expect_disturbance(client)
                    break
        keys = [spec.key for spec in client.specs]
        if ordered and found != keys[: len(found)]:
            self.wrong(f"an ordered map gave {found}")
        if len(set(found)) != len(found) or not set(found) <= set(keys):
            self.wrong(f"a map gave {found} for {keys}")
        if len(found) < len(keys) and len(found) <= client.reads:
            self.wrong(f"a map ended after {found} of {keys}")

    async def _by_trickle(self, client: Client) -> None:
        await self._read(client, ordered=client.window is None, slowly=True)

    async def _items(self, client: Client) -> AsyncIterator[Spec]:
        for spec in client.specs:
            await asyncio.sleep(0.1 * (spec.key % 3))
            yield spec

    async def _by_outcomes(self, client: Client) -> None:
        found: list[int] = []
        async for job in self._map(client).outcomes():
            (spec,) = job.args
            self._know(spec, job)
            found.append(spec.key)
            if not job.done():
                self.wrong(f"outcomes gave {job!r}")
        if found != [spec.key for spec in client.specs]:
            self.wrong(f"outcomes gave {found}")

    def _map(self, client: Client, *, ordered: bool = True, items: Any = None) -> Any:
        function = self.function(client.specs[0])
        items = client.specs if items is None else items
        return self.supervisor.map(function, items, ordered=ordered, window=client.window)

    def _give_up(self, client: Client, task: asyncio.Task[Any]) -> None:
        task.cancel()
        if client.how not in ("submit", "nowait", "many"):  # those only detach
            self._expect_disturbance(client)
