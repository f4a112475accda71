"""The dashboard as an ASGI app: a page, what the page asks for, and the actions it may ask for."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from importlib.resources import files
from typing import Any, Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asyncworkers import _checks
from asyncworkers.dashboard.data import Action, Refusal, Source, Wanted, clean
from asyncworkers.dashboard.ticker import Ticker
from asyncworkers.errors import AsyncworkersError
from asyncworkers.job import JobState
from asyncworkers.web.answers import Json, Refused
from asyncworkers.web.body import clamped, read_json
from asyncworkers.web.events import EventStreams
from asyncworkers.web.guard import Auth, Guard, may_act, path_of
from asyncworkers.web.token import Token

__all__ = ["Dashboard"]

log = logging.getLogger("asyncworkers.dashboard")

HTML: Final = "text/html; charset=utf-8"
CSS: Final = "text/css; charset=utf-8"
SCRIPT: Final = "text/javascript; charset=utf-8"

ASSETS: Final = {
    "/": ("index.html", HTML),
    "/style.css": ("style.css", CSS),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.js": (f"{name}.js", SCRIPT)
        for name in ("app", "api", "dom", "format", "job", "jobs", "overview", "table", "workers")
    },
}
"""All the files there are, by the path they are asked for: no path is ever made from a request."""

PAGE_SIZE: Final = 200
"""Jobs on one page, at the most."""

FURTHEST: Final = 10**15
"""How far a list of jobs can be continued."""


class Dashboard:
    """The dashboard of a source, to be mounted in an ASGI app or served on its own.

    - `source`: what it shows.
    - `auth`: who may see it: a `Token`, a function of the request, or None for whoever is on this
      machine. See `asyncworkers.http.Guard`.
    - `hosts`: names under which it may be asked, beside those of loopback.
    - `actions`: whether whoever may see it and is allowed to act may cancel, retry, pause and resize.
    - `ends`: what is awaited to end its streams of events, for its server to stop.
    - `every`: seconds between two pictures.
    - `clients`: streams of events that may be open at once.
    """

    def __init__(
        self,
        source: Source,
        *,
        auth: Auth | None,
        hosts: Iterable[str] = (),
        actions: bool = False,
        ends: Callable[[], Awaitable[object]] | None = None,
        every: float | timedelta = 1.0,
        clients: int = 16,
    ) -> None:
        self._source = source
        self._actions = _checks.flag("actions", actions)
        self._ends = ends
        self._every = _checks.duration("every", every, zero=False)
        # A picture makes the ones before it worthless: few have to wait for a slow client.
        self.streams = EventStreams(clients=clients, buffer=4, retry=1.0)
        self.ticker = Ticker(self._look, self._every)
        self._signs_in = isinstance(auth, Token)
        self._guard = Guard(self._serve, auth=auth, hosts=hosts, public=ASSETS)
        page = files("asyncworkers.dashboard") / "page"
        self._files = {path: (page / name).read_bytes() for path, (name, _) in ASSETS.items()}
        self._routes: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/api/about": self._about,
            "/api/overview": self._overview,
            "/api/live": self._live,
            "/api/jobs": self._jobs,
            "/api/job": self._job,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await _live_and_die(receive, send)
        else:
            await self._guard(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = await self._answer(request, path_of(scope))
        await answer(scope, receive, send)

    async def _answer(self, request: Request, path: str) -> Response:
        try:
            if request.method == "POST":
                if path != "/api/act":
                    raise Refused(404, "NotFound", "there is nothing to change under this path")
                return await self._act(request)
            if path == "/" and not request.scope["path"].endswith("/"):
                # Its page names its files relative to a folder.
                return RedirectResponse(f"{request.scope.get('root_path', '')}/", 307)
            if path in ASSETS:
                return Response(self._files[path], media_type=ASSETS[path][1])
            if path in self._routes:
                return await self._routes[path](request)
        except Refusal as refusal:
            kind = ("NotFound", 404) if refusal.missing else ("Conflict", 409)
            raise Refused(kind[1], kind[0], str(refusal)) from None
        except AsyncworkersError as error:  # not entered yet, closed, its store out of reach
            raise Refused(
                503, "Unavailable", _checks.summary(error), {"Retry-After": "2"}
            ) from None
        raise Refused(404, "NotFound", "there is nothing under this path")

    # ---- looking

    async def _about(self, request: Request) -> Response:
        return Json(
            {
                "actions": self._actions and may_act(request.scope),
                "signs_in": self._signs_in,
                "every": self._every,
            }
        )

    async def _look(self) -> dict[str, Any]:
        streams = self.streams
        return {
            **await self._source.overview(),
            "streams": {
                "open": streams.open,
                "refused": streams.refused,
                "slow": streams.slow,
                "dropped": streams.dropped,
            },
        }

    async def _overview(self, _request: Request) -> Response:
        return Json(await self.ticker.picture())

    async def _live(self, request: Request) -> Response:
        if not self._source.is_open():
            raise Refused(503, "Unavailable", "nothing happens here", {"Retry-After": "2"})
        return self.streams.answer(request, self.ticker.follow, ends=self._ends)

    async def _jobs(self, request: Request) -> Response:
        return Json(clean(await self._source.jobs(_wanted(request))))

    async def _job(self, request: Request) -> Response:
        ident = request.query_params.get("id", "")
        document = await self._source.job(ident) if _is_name(ident) else None
        if document is None:
            raise Refused(404, "NotFound", "there is no such job (any more)")
        return Json(clean(document))

    # ---- steering

    async def _act(self, request: Request) -> Response:
        if not self._actions:
            raise Refused(
                403, "Forbidden", "this dashboard only shows: it was made without actions=True"
            )
        if not may_act(request.scope):
            raise Refused(403, "Forbidden", "you may look, but not change anything")
        action = _action(await read_json(request))
        said = await self._source.act(action)
        who = "somebody" if request.client is None else request.client.host
        log.info("%s %s, asked from %s", action.verb, _checks.printable(action.target), who)
        return Json({"message": clean(said)})


def _wanted(request: Request) -> Wanted:
    given = request.query_params
    state = given.get("state") or None
    if state is not None and state not in tuple(JobState):
        raise Refused(422, "ValidationError", "state must be that of a job", argument="state")
    for name in ("queue", "name", "tag"):
        if given.get(name) and not _is_name(given[name]):
            raise Refused(
                422, "ValidationError", f"{name} must be 1 to 128 characters", argument=name
            )
    after = given.get("after") or None
    number = None if after is None else after.removeprefix("here-")
    if number is not None and not (
        number.isascii() and number.isdecimal() and len(number) <= 15 and int(number) < FURTHEST
    ):
        raise Refused(422, "ValidationError", "after must be what a list said", argument="after")
    return Wanted(
        None if state is None else JobState(state),
        given.get("queue") or None,
        given.get("name") or None,
        given.get("tag") or None,
        after,
        int(clamped(request, "limit", 50, 1, PAGE_SIZE)),
    )


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= 128 and text.isprintable()


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    action: str
    target: str
    workers: int | None = None


def _action(body: Any) -> Action:
    """What is asked for; raises Refused (422) for what makes no sense."""
    try:
        asked = msgspec.convert(body, _Asked)
        verb = _checks.one_of(
            "action", asked.action, ("cancel", "retry", "pause", "resume", "resize")
        )
        _checks.job_id("target", asked.target)
        if verb in ("pause", "resume", "resize"):
            _checks.queue_name("target", asked.target)
        if asked.workers is not None or verb == "resize":
            _checks.whole("workers", asked.workers, 0, 1_000_000)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        message = _checks.printable(str(error))[:200]
        raise Refused(422, "ValidationError", message) from None
    return Action(cast("Any", verb), asked.target, asked.workers or 0)


async def _live_and_die(receive: Receive, send: Send) -> None:
    """A lifespan in which there is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
