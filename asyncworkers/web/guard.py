"""The Guard decides who may ask: nothing reaches the app behind it that is not allowed to."""

from __future__ import annotations

import inspect
import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asyncworkers import _checks
from asyncworkers.web.answers import Refused
from asyncworkers.web.body import read_bounded, read_json, replayed
from asyncworkers.web.token import Token

__all__ = ["Answer", "Auth", "Guard", "check_bind", "may_act", "path_of"]

Answer: TypeAlias = bool | Literal["read"] | Response | None
"""What an `auth` function says of a request: True (it may do all there is), "read" (it may look),
False or None (nothing), or a response to answer with instead, such as a redirect to a login."""

Auth: TypeAlias = Token | Callable[[Request], Answer | Awaitable[Answer]]
"""Who says who may ask: a Token, or a function, `def` or `async def`, that is given the request."""

LARGEST_BODY: Final = 64 * 1024
LONGEST_QUERY: Final = 4_096
LONGEST_PATH: Final = 2_048

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The names by which a machine asks itself; no other name can be made to mean these by its DNS."""

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer tells a browser: run nothing but our files, show us in no frame, keep nothing."""

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_ACCESS = "asyncworkers.may_act"


class Guard:
    """An ASGI app around another one: it answers what is not allowed, and lets through the rest.

        app = Guard(routes, auth=Token(), hosts=["jobs.example.com"], public=["/", "/app.js"])

    - `app`: the ASGI app to guard. It may raise `Refused` to answer with an error. What it routes by
      is `path_of(scope)`: the path below wherever the guard is mounted.
    - `auth`: who may ask: a `Token`, or a function that is given the (starlette) request and says
      True, "read" or False; it may be `async def`, raise `Refused`, or return a response to be sent
      instead. None means whoever is on this machine: it is refused where others may ask, that is
      with `hosts`; and a request that came from another machine, or over a proxy, is refused.
    - `hosts`: the names under which this may be asked, beside those of loopback: "jobs.example.com"
      for any port, or "jobs.example.com:8443".
    - `public`: paths, below the mount, that may be got without `auth`: a page and what it is made
      of, so that its script can sign in.
    - `max_body`: bytes that a body may have. It is read before the app is called, in ten seconds at
      most.

    In order, for each request:

    1. `Host` must be an allowed name (else 403: another name may have been pointed here, by DNS
       rebinding), path and query must have bounds (414).
    2. Only GET and POST exist (405), and an app must change nothing when it is asked to GET.
    3. What another site's page asks for is refused (403), by `Sec-Fetch-Site`, but for a person who
       follows a link. A POST must also have an `Origin` that is this very site, or none while
       `Sec-Fetch-Site` says so; if it has neither, it must have `Authorization: Bearer`, as programs
       send it and browsers never do by themselves. And it must be `application/json` (415), which
       no form of another site can send.
    4. `auth` must allow it: 401 without or with a wrong token, 403 if a function says no, or if it
       says "read" and this is a POST. `may_act(scope)` tells the app which of the two it was.
    5. The body is read, within its bounds (413, 408, 415 if it is compressed).

    With a Token, `POST session` with `{"token": "..."}` below the mount signs a browser in (204, with
    the cookie) and `POST session/end` out. Every answer has the headers of `HEADERS`, an error is
    JSON, `{"error": {"type": "Forbidden", "message": "..."}}`, and an error of the app itself is 500
    and tells nothing. WebSockets are refused. The lifespan goes to the app as it is.

    It works under any mount (`root_path`), and on its own. Raises TypeError or ValueError for what
    it cannot be made of, and for `hosts` without `auth`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        auth: Auth | None = None,
        hosts: Iterable[str] = (),
        public: Iterable[str] = (),
        max_body: int = LARGEST_BODY,
        body_seconds: float | timedelta = 10.0,
    ) -> None:
        if auth is not None and not callable(auth) and not isinstance(auth, Token):
            raise TypeError(
                f"auth must be a Token, a function of the request or None, not {_checks.shown(auth)}"
            )
        self._app = app
        self._auth = auth
        self._hosts = _host_names(hosts)
        if auth is None and self._hosts - LOOPBACK:
            raise ValueError(
                "auth must be given with hosts: whoever can reach one of them could do everything; "
                "auth=Token(...), or a function that looks at the request"
            )
        self._public = frozenset(_checks.iterable("public", public))
        self._max_body = _checks.whole("max_body", max_body, 0, 1 << 30)
        self._body_seconds = _checks.duration("body_seconds", body_seconds, zero=False)

    def __repr__(self) -> str:
        return f"<Guard of {self._app!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the app answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "not offered"})
        else:
            sending = _Sending(send)
            try:
                await self._serve(scope, receive, sending)
            except Refused as refused:
                if sending.started:
                    raise
                await refused.answer()(scope, receive, sending)
            except Exception:
                if not sending.started:
                    failed = Refused(500, "InternalError", "something went wrong here")
                    await failed.answer()(scope, receive, sending)
                raise  # for the server to log

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        host = self._check_where(request)
        acts = _check_method(request)
        _check_site(request, host, acts=acts)
        path = path_of(scope)
        if isinstance(self._auth, Token) and acts and path in ("/session", "/session/end"):
            answer = await self._session(self._auth, path, scope, receive)
            await answer(scope, receive, send)
            return
        if acts or path not in self._public:
            said = await self._ask(request)
            if isinstance(said, Response):
                await said(scope, receive, send)
                return
            if acts and said == "read":
                raise Refused(403, "Forbidden", "you may look, but not change anything")
            scope[_ACCESS] = said is True
        if acts:
            body = await read_bounded(scope, receive, self._max_body, self._body_seconds)
            receive = replayed(body, receive)
        await self._app(scope, receive, send)

    def _check_where(self, request: Request) -> str:
        """The host that was asked, if it may be: raises Refused."""
        given = request.headers.getlist("host")
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise Refused(403, "Forbidden", "a request must name one host")
        host = given[0].lower()
        name = match[1].lower()
        if name not in LOOPBACK and not {host, name} & self._hosts:
            raise Refused(
                403,
                "Forbidden",
                f"the host {_checks.shown(host)} is not one that this answers to: hosts=[...] names them",
            )
        if self._auth is None and not _is_near(request):
            raise Refused(
                403, "Forbidden", "without auth=, this answers to nobody but its own machine"
            )
        scope = request.scope
        if len(scope["path"]) > LONGEST_PATH or len(scope["query_string"]) > LONGEST_QUERY:
            raise Refused(414, "UriTooLong", "the path or the query is too long")
        return host

    async def _ask(self, request: Request) -> Literal[True, "read"] | Response:
        """What is allowed; raises Refused if nothing is."""
        auth = self._auth
        if auth is None:
            return True
        if isinstance(auth, Token):
            if auth.admits(request):
                return True
            raise Refused(
                401,
                "Unauthorized",
                "a token is needed: Authorization: Bearer ..., or the cookie of a session",
                {"WWW-Authenticate": 'Bearer realm="asyncworkers"'},
            )
        said: Any = auth(request)
        if inspect.isawaitable(said):
            said = await said
        if said is True or isinstance(said, Response):
            return said
        if type(said) is str and said == "read":
            return "read"
        if said is False or said is None:
            raise Refused(403, "Forbidden", "you are not allowed to")
        raise TypeError(
            f"auth must answer True, 'read', False, None or a Response, not {_checks.shown(said)}"
        )

    async def _session(self, token: Token, path: str, scope: Scope, receive: Receive) -> Response:
        body = await read_bounded(scope, receive, 4_096, self._body_seconds)
        request = Request(scope, replayed(body, receive))
        if path == "/session/end":
            return token.sign_out(request)
        said = await read_json(request)
        given = cast("dict[str, object]", said).get("token") if isinstance(said, dict) else None
        return token.sign_in(request, given)


class _Sending:
    """A `send` that adds the headers every answer has, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await self._send(message)


def may_act(scope: Scope) -> bool:
    """Whether whoever asked may change something, or only look; for an app behind a `Guard`."""
    return scope.get(_ACCESS) is True


def path_of(scope: Scope) -> str:
    """The path of a request below wherever the app is mounted, beginning with a slash."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    return path or "/"


def check_bind(host: str, auth: Auth | None) -> None:
    """For whoever starts a server: raises ValueError if it would listen beyond loopback without `auth`.

    A text that begins with a slash, or with "unix:", is a socket of this machine.
    """
    if auth is not None or _checks.text("host", host).startswith(("/", "unix:")):
        return
    if host.lower() not in LOOPBACK and not _is_loopback(host):
        raise ValueError(
            f"auth must be given to listen on {_checks.shown(host)}: whoever can reach it could do "
            "everything; give one, or listen on 127.0.0.1"
        )


def _host_names(hosts: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for host in _checks.iterable("hosts", hosts, "an iterable of host names"):
        match = _HOST.fullmatch(_checks.text("a host", host))
        if match is None:
            raise ValueError(
                f"hosts must hold names such as 'example.com' or 'example.com:8443', not {_checks.shown(host)}"
            )
        found.add(host.lower())
    return frozenset(found)


def _is_near(request: Request) -> bool:
    """Whether it was asked on this machine, by nobody else's order."""
    passed_on = ("forwarded", "x-real-ip", "via")
    if any(name in passed_on or name.startswith("x-forwarded-") for name in request.headers):
        return False
    return request.client is None or _is_loopback(request.client.host)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check_method(request: Request) -> bool:
    """Whether this is to change something; raises Refused for what is neither GET nor POST."""
    if request.method not in ("GET", "POST"):
        raise Refused(
            405, "MethodNotAllowed", "GET and POST are all there is", {"Allow": "GET, POST"}
        )
    return request.method == "POST"


def _check_site(request: Request, host: str, *, acts: bool) -> None:
    """Raise Refused for what a page of another site asks for."""
    headers = request.headers
    site = headers.getlist("sec-fetch-site")
    ours = all(one in ("same-origin", "none") for one in site)
    if not acts:
        if not ours and not _is_visit(headers):
            raise Refused(403, "Forbidden", "another site may not ask for this")
        return
    origin = headers.getlist("origin")
    if origin:
        # Behind a proxy that speaks TLS the scheme may not be known here; the browser's own word is.
        schemes = ("http", "https") if site and ours else (request.url.scheme,)
        ours = ours and len(origin) == 1 and origin[0].lower() in _origins(host, schemes)
    elif not site:
        ours = headers.get("authorization", "").lower().startswith("bearer ")
    if not ours:
        raise Refused(
            403,
            "Forbidden",
            "a change must be asked for by a page of this site (Origin, Sec-Fetch-Site), "
            "or by a program that has a token (Authorization: Bearer)",
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            415,
            "UnsupportedMediaType",
            "a body must be application/json; a POST without one must say so as well",
        )


def _origins(host: str, schemes: Iterable[str]) -> list[str]:
    """How a browser names a site: without the port that its scheme means anyway."""
    usual = {"http": ":80", "https": ":443"}
    return [f"{scheme}://{host.removesuffix(usual.get(scheme, ''))}" for scheme in schemes]


def _is_visit(headers: Headers) -> bool:
    """Whether a person follows a link, and sees the answer as a page of its own."""
    mode, dest = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return mode == "navigate" and dest == "document"
