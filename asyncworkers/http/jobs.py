"""The HTTP face of jobs: an ASGI app that submits what was exposed, and tells what became of it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import quote

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from asyncworkers import Job, JobState, Supervisor, _checks
from asyncworkers.errors import (
    DuplicateJob,
    JobNotFound,
    NotSerializable,
    QueueFull,
    StoreUnavailable,
    SupervisorClosed,
    SupervisorFailed,
)
from asyncworkers.http.calls import Exposed, exposed, is_ours
from asyncworkers.http.documents import ENDED, Known, end_of, status_of
from asyncworkers.http.ledger import Ledger, new_id
from asyncworkers.http.listing import Wanted, page
from asyncworkers.http.openapi import describe
from asyncworkers.integrations.refusal import RETRY_AFTER, reason
from asyncworkers.web.answers import Json, Refused
from asyncworkers.web.body import clamped, read_json
from asyncworkers.web.events import EventStreams, Feed
from asyncworkers.web.first import first_of
from asyncworkers.web.guard import Auth, Guard, path_of

__all__ = ["JobsApp"]

MOST_WAITS: Final = 256
"""Requests that may wait for a result at once; more are answered at once, that it is not there yet."""

LOOKS: Final = 0.25
"""Seconds after which a stream looks whether its job has got on."""


class JobsApp:
    """Jobs over HTTP: an ASGI app to mount, `app.mount("/jobs", JobsApp(supervisor, [fetch]))`.

    - `supervisor`: whose jobs these are. It is entered by the application around this one; where
      this is the whole application (`uvicorn module:jobs_app`) it enters and drains it itself.
    - `expose`: the functions that may be called, or a mapping of names to them. No other can be.
    - `auth`, `hosts`: who may ask, and by which names; see `Guard`. Without `auth` only this machine is
      answered.
    - `keep`, `ttl`: of the jobs in memory that have ended, so many are remembered, for so many seconds.
    - `max_wait`: seconds that a request for a result may wait for it.
    - `tracebacks`: whether errors are told with their tracebacks, which tell about your code.
    - `max_body`: bytes that the arguments of a call may take.
    - `streams`: bounds of the event streams, see `EventStreams`.
    - `title`, `version`: for the description.

    Below the mount:

    - `POST submit/{function}`, with the arguments as a JSON object: 202 with the job, 503 with
      `Retry-After` if the queue is full or the supervisor drains, 422 naming the argument that is
      wrong. With an `Idempotency-Key` the same call makes one job however often it is sent.
    - `GET {id}`: where the job is. `GET {id}/result?wait=10`: 200 with its result or its error once it
      has ended, 202 until then. `GET {id}/events`: a stream of its progress. `POST {id}/cancel`.
    - `GET` of the mount itself: the jobs, newest first: `?function=&state=&tag=&limit=50&offset=0`.
    - `GET openapi.json`: all this as an OpenAPI 3.1 description.

    Where jobs are known: those of a queue in memory by the process that took them, which also keeps
    their results; with several server processes a request may reach another one, and gets 404.
    Those of a stored queue are known by every process of the store, for as long as that keeps
    them. Ids are 128 random bits: who has one may ask for the job, if `auth` lets them ask at all.
    Everybody whom `auth` lets in sees all jobs there are: one app is for one circle of people who
    trust each other.

    Raises TypeError or ValueError for what cannot be exposed, and for `hosts` without `auth`.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        expose: Mapping[str, Callable[..., Any]] | Iterable[Callable[..., Any]],
        *,
        auth: Auth | None = None,
        hosts: Iterable[str] = (),
        keep: int = 10_000,
        ttl: float | timedelta = 3600.0,
        max_wait: float | timedelta = 30.0,
        tracebacks: bool = False,
        max_body: int = 64 * 1024,
        streams: EventStreams | None = None,
        title: str = "Jobs",
        version: str = "1",
    ) -> None:
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {_checks.shown(supervisor)}")
        self._supervisor = supervisor
        self._functions = exposed(supervisor, expose)
        self._guard = Guard(self._serve, auth=auth, hosts=hosts, max_body=max_body)
        keep = _checks.whole("keep", keep, 0, 10_000_000)
        self._ledger = Ledger(keep, _checks.duration("ttl", ttl))
        self._max_wait = _checks.duration("max_wait", max_wait)
        self._tracebacks = _checks.flag("tracebacks", tracebacks)
        if streams is not None and not isinstance(streams, EventStreams):
            raise TypeError(f"streams must be EventStreams, not {_checks.shown(streams)}")
        self._streams = EventStreams() if streams is None else streams
        self._about = _checks.text("title", title), _checks.text("version", version)
        self._waiting = 0
        self._router = Router(lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI says."""
        await self._guard(scope, receive, send)

    def openapi(self, url: str = "/") -> dict[str, Any]:
        """The description of this app, mounted at `url`."""
        title, version = self._about
        return describe(self._functions.values(), title, version, url, self._max_wait)

    def __repr__(self) -> str:
        return f"<JobsApp of {', '.join(self._functions)}>"

    # ---- requests

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._router.lifespan(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await self._answer(request)
        except (SupervisorClosed, SupervisorFailed, StoreUnavailable) as error:
            raise _later(error) from error
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        match request.method, path_of(request.scope).strip("/").split("/"):
            case "GET", [""]:
                return await self._list(request)
            case "GET", ["openapi.json"]:
                return Json(self.openapi(request.scope.get("root_path") or "/"))
            case "POST", ["submit", name]:
                return await self._submit(request, name)
            case "GET", [ident]:
                return Json(status_of(await self._find(ident)))
            case "GET", [ident, "result"]:
                return await self._result(request, ident)
            case "GET", [ident, "events"]:
                return await self._events(request, ident)
            case "POST", [ident, "cancel"]:
                return await self._cancel(request, ident)
            case _:
                raise Refused(404, "NotFound", "there is nothing at this path for this method")

    async def _submit(self, request: Request, name: str) -> Response:
        function = self._functions.get(name)
        if function is None:
            raise Refused(
                404, "UnknownFunction", f"no function {_checks.shown(name)} may be called here"
            )
        key, body = _key(request), await request.body()
        call = function.call(body)
        try:
            if function.stored:
                known, is_new = await self._store(function, call, key)
            else:
                known, is_new = self._take(function, call, key, body)
        except QueueFull as error:
            raise _later(error) from error
        except DuplicateJob as error:
            message = _checks.printable(str(error))
            raise Refused(409, "DuplicateJob", message, id=error.job_id) from error
        except NotSerializable as error:
            message = _checks.printable(str(error))[:1_000]
            raise Refused(422, "NotSerializable", message) from error
        # Relative to what was asked, for nobody here knows what proxies have cut from its path.
        headers = {"Location": f"../{quote(known.id, safe='')}"}
        if not is_new:
            headers["Idempotent-Replayed"] = "true"
        return Json(status_of(known), 202 if is_new else 200, headers)

    def _take(
        self, function: Exposed, call: Any, key: str | None, body: bytes
    ) -> tuple[Known, bool]:
        """The job in memory that the call makes, or has made before."""
        digest = b"" if key is None else hashlib.sha256(body).digest()
        entry = None if key is None else self._ledger.of_key(function.name, key)
        if entry is None:
            job = self._supervisor.submit_nowait(call)
            entry = self._ledger.add(job, function.name, key, digest)
            return Known(entry.id, function.name, job, stored=False), True
        if entry.digest != digest:
            raise _other_call()
        return Known(entry.id, function.name, entry.job, stored=False), False

    async def _store(self, function: Exposed, call: Any, key: str | None) -> tuple[Known, bool]:
        """The same in the store."""
        ident = new_id() if key is None else _id_of_key(function.name, key)
        there: Job[Any] | None = None
        if key is not None:
            with contextlib.suppress(JobNotFound):
                there = await self._supervisor.stored.get(ident)
        job = await self._supervisor.submit(call.with_id(ident)) if there is None else there
        # Also one that came while this one was on its way to the store may have used the key.
        is_its = key is not None and job.id == ident
        if is_its and (job.args, job.kwargs) != (call.args, call.kwargs):
            raise _other_call()
        return Known(job.id, function.name, job, stored=True), there is None

    async def _find(self, ident: str) -> Known:
        """The job of this id, as it stands now; raises Refused (404)."""
        entry = self._ledger.find(ident)
        if entry is not None:
            return Known(entry.id, entry.function, entry.job, stored=False)
        stored = [one for one in self._functions.values() if one.stored]
        if stored and 1 <= len(ident) <= 128 and ident.isprintable():
            try:
                job = await self._supervisor.stored.get(ident)
            except JobNotFound:
                pass
            else:
                for function in stored:
                    if is_ours(job, function):
                        return Known(ident, function.name, job, stored=True)
        hint = (
            "; jobs in memory are known only to the process that took them, and only for a "
            "while after their end"
        )
        memory = len(stored) < len(self._functions)
        raise Refused(404, "JobNotFound", f"no job has this id here{hint if memory else ''}")

    async def _list(self, request: Request) -> Response:
        wanted = _wanted(request, self._functions)
        limit = int(clamped(request, "limit", 50, 1, 200))
        offset = int(clamped(request, "offset", 0, 0, 10_000))
        functions = [one for one in self._functions.values() if wanted.function in (None, one.name)]
        jobs, more = await page(self._supervisor, self._ledger, functions, wanted, offset, limit)
        return Json({"jobs": [status_of(one) for one in jobs], "more": more})

    async def _result(self, request: Request, ident: str) -> Response:
        known = await self._find(ident)
        seconds = clamped(request, "wait", 0.0, 0.0, self._max_wait)
        if seconds and not known.job.done() and self._waiting < MOST_WAITS:
            self._waiting += 1
            try:
                await self._wait(known, seconds, request)
            finally:
                self._waiting -= 1
        if not known.job.done():
            return Json(status_of(known), 202, {"Retry-After": "1"})
        return Json(end_of(known, tracebacks=self._tracebacks))

    async def _wait(self, known: Known, seconds: float, request: Request) -> None:
        """Wait for the end of the job, but not for one that the drain gave back to the store."""

        async def gone() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        waits: list[Callable[[], Any]] = [known.job.wait, gone]
        if known.stored:
            waits.append(self._supervisor.wait_draining)
        with anyio.move_on_after(seconds):
            await first_of(*waits)

    async def _cancel(self, request: Request, ident: str) -> Response:
        body: Any = await read_json(request) if await request.body() else {}
        given = cast("dict[str, Any]", body) if type(body) is dict else {"reason": None}
        reason = given.get("reason", "cancelled over HTTP")
        if type(reason) is not str or len(reason) > 200:
            raise Refused(
                422,
                "ValidationError",
                'the body must be empty or {"reason": "..."}, a text of 200 characters at most',
                argument="reason",
            )
        known = await self._find(ident)
        if known.stored:
            asked = await self._supervisor.stored.cancel(ident, reason=reason) > 0
            known = await self._find(ident)
        else:
            asked = known.job.cancel(reason)
        return Json({**status_of(known), "asked": asked})

    async def _events(self, request: Request, ident: str) -> Response:
        if request.headers.get("last-event-id") == "end":
            return Response(status_code=204)  # which tells a browser not to ask again
        known = await self._find(ident)
        if self._supervisor.state == "new":
            raise _later(SupervisorClosed("the supervisor has not started"))

        async def follow(feed: Feed) -> None:
            now, last = known, None
            while True:
                told = status_of(now)
                if str(told["state"]) in ENDED:
                    feed.put(told, "end", id="end")
                    return
                seen = {**told, "why": None}  # it counts seconds
                if seen != last:
                    feed.put(told, "job")
                    last = seen
                with anyio.move_on_after(LOOKS):
                    await now.job.wait()
                if now.stored:
                    try:
                        now = await self._find(ident)
                    except (Refused, StoreUnavailable):
                        return  # it was forgotten meanwhile, or is to be asked for again

        return self._streams.answer(request, follow, ends=self._supervisor.wait_draining)

    # ---- its life, where it is the whole application

    @asynccontextmanager
    async def _lifespan(self, _app: object) -> AsyncGenerator[None]:
        if self._supervisor.state in ("open", "draining"):
            yield  # somebody around this has entered it
            return
        async with self._supervisor.lifespan(self):
            yield


def _key(request: Request) -> str | None:
    """What the client calls this one call, so that it can send it again. Raises Refused (422)."""
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Refused(
            422,
            "ValidationError",
            "Idempotency-Key must be 1 to 255 printable ASCII characters",
            argument="Idempotency-Key",
        )
    return key


def _id_of_key(function: str, key: str) -> str:
    """The id that every process gives to the job of this key: 128 bits."""
    text = f"asyncworkers job {function} {key}".encode()
    return hashlib.sha256(text).hexdigest()[:32]


def _other_call() -> Refused:
    return Refused(
        422,
        "IdempotencyKeyReused",
        "a call with other arguments was made with this Idempotency-Key: a new call needs a new one",
        argument="Idempotency-Key",
    )


def _later(error: Exception) -> Refused:
    """The answer that a `SupervisorMiddleware` would give, or in the same form what it has none for."""
    message = reason(error) or _checks.printable(str(error))
    return Refused(503, type(error).__name__, message, {"Retry-After": str(RETRY_AFTER)})


def _wanted(request: Request, functions: Mapping[str, Exposed]) -> Wanted:
    """What jobs the query asks for. Raises Refused (422), naming what is senseless."""
    query = request.query_params
    function, state, tag = query.get("function"), query.get("state"), query.get("tag")
    if function is not None and function not in functions:
        raise _senseless("function", f"function {_checks.shown(function)} is not one of these")
    if state is not None and state not in tuple(JobState):
        raise _senseless("state", f"state must be one of {', '.join(JobState)}")
    if tag is not None and not (1 <= len(tag) <= 64 and tag.isprintable()):
        raise _senseless("tag", "tag must be 1 to 64 printable characters")
    return Wanted(function, None if state is None else JobState(state), tag)


def _senseless(argument: str, message: str) -> Refused:
    return Refused(422, "ValidationError", message, argument=argument)
