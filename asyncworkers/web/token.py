"""A Token is a secret that lets whoever knows it in: programs by a header, browsers by a cookie."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict

import anyio
from starlette.requests import Request
from starlette.responses import Response

from asyncworkers import _checks
from asyncworkers.units import counted
from asyncworkers.web.answers import Refused

__all__ = ["Token"]

SESSION = 12 * 3600
"""Seconds for which a browser that has signed in stays so."""

TRIES = 10
"""Wrong tokens that one address may present in a `WINDOW` of seconds."""

WINDOW = 60.0

ADDRESSES = 4_096
"""Addresses of which wrong tokens are counted; of more, the one unheard of for longest is dropped."""


class Token:
    """Lets in whoever knows a secret of 128 bits: `auth=Token()`.

    - `secret`: 32 characters or more that nobody can guess, as `secrets.token_hex(16)` makes them.
      Without one a new one is made: it holds until the process ends, and each worker process of a
      server has another, so give one where there are several.

    A program sends it as `Authorization: Bearer SECRET`. A person opens `url("http://...")`, which has
    it behind the `#`, where no server, log or `Referer` sees it; the page exchanges it by
    `POST session` for a cookie that no script can read and no other site can use. The cookie is
    derived from the secret, which it does not tell, and ends after 12 hours. Secrets are compared in
    constant time, and an address that presents ten wrong ones in a minute is not listened to for
    the rest of it; browsers there that have signed in are, for nobody can guess their cookies.
    """

    def __init__(self, secret: str | None = None) -> None:
        given = secrets.token_hex(16) if secret is None else _checks.text("secret", secret)
        if not (32 <= len(given) <= 512 and given.isascii() and given.isprintable()):
            raise ValueError(
                "secret must be 32 to 512 printable ASCII characters that nobody can guess, "
                f"such as secrets.token_hex(16) makes them, not {len(given)} others"
            )
        if " " in given:
            raise ValueError("secret must hold no spaces: it is sent in a header")
        self._secret = given.encode()
        # Cookies of one host are shared by all its ports: the name tells whose cookie this is.
        self._name = f"asyncworkers-{self._mac('name')[:8]}"
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def secret(self) -> str:
        """The secret itself, to be handed to whoever may come in."""
        return self._secret.decode()

    def url(self, page: str) -> str:
        """The address to open in a browser, with the secret where only the page itself sees it."""
        return f"{_checks.text('page', page)}#token={self.secret}"

    def __repr__(self) -> str:
        return "<Token>"

    # ---- for the guard

    def admits(self, request: Request) -> bool:
        """Whether the request comes from somebody who knows the secret.

        Raises Refused (429) if its address has presented too many wrong ones.
        """
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(self._cookie(request))
        if scheme.lower() == "bearer":
            self._check_tries(request)
            right = hmac.compare_digest(given.strip().encode(), self._secret)
        elif cookie is None:
            return False
        else:
            right = self._is_session(cookie)
            if not right:
                self._check_tries(request)
        if not right:
            self._count_wrong(request)
        return right

    def sign_in(self, request: Request, given: object) -> Response:
        """Exchange the secret for a cookie. Raises Refused (401, 429)."""
        self._check_tries(request)
        if type(given) is not str or not hmac.compare_digest(
            given.encode("utf-8", "replace"), self._secret
        ):
            self._count_wrong(request)
            raise Refused(401, "Unauthorized", "this is not the token")
        until = str(int(time.time()) + SESSION)
        return self._answer(request, f"{until}.{self._mac(until)}", SESSION)

    def sign_out(self, request: Request) -> Response:
        """Have the browser forget its cookie."""
        return self._answer(request, "", 0)

    def _answer(self, request: Request, value: str, seconds: int) -> Response:
        secure = request.url.scheme == "https"
        answer = Response(status_code=204)
        answer.set_cookie(
            self._cookie(request),
            value,
            max_age=seconds,
            # A `__Host-` cookie is the host's own, for all its paths: no subdomain can plant one.
            path="/" if secure else request.scope.get("root_path") or "/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    def _cookie(self, request: Request) -> str:
        return f"__Host-{self._name}" if request.url.scheme == "https" else self._name

    def _is_session(self, cookie: str) -> bool:
        until, _, mac = cookie.partition(".")
        right = hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac(until).encode())
        return right and until.isdecimal() and int(until) > time.time()

    def _mac(self, text: str) -> str:
        message = f"asyncworkers session {text}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    def _check_tries(self, request: Request) -> None:
        wrong = self._wrong.get(_address(request), [])
        now = anyio.current_time()
        recent = [at for at in wrong if at > now - WINDOW]
        if len(recent) >= TRIES:
            seconds = int(recent[0] + WINDOW - now) + 1
            raise Refused(
                429,
                "TooManyTries",
                f"too many wrong tokens came from this address: wait {counted(seconds, 'second')}",
                {"Retry-After": str(seconds)},
            )

    def _count_wrong(self, request: Request) -> None:
        address = _address(request)
        wrong = self._wrong.setdefault(address, [])
        self._wrong.move_to_end(address)
        wrong.append(anyio.current_time())
        del wrong[:-TRIES]
        if len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host
