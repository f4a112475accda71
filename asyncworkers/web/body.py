"""Bodies and queries: whatever comes in is bounded before it is looked at."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from asyncworkers import _checks
from asyncworkers.store.codec import DEEPEST, too_deep
from asyncworkers.web.answers import Refused

__all__ = ["clamped", "read_bounded", "read_json"]

_decode = msgspec.json.Decoder().decode


async def read_bounded(scope: Scope, receive: Receive, most: int, seconds: float) -> bytes:
    """The whole body, of `most` bytes at most and there after so many seconds.

    Raises Refused: 413 for more, 408 for later, 415 for one that would have to be unpacked first,
    400 if whoever sends it is gone.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and not _is_at_most(value, most):
            raise _too_large(most)
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            raise Refused(415, "UnsupportedMediaType", "a body must come as it is, not compressed")
    found = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "BadRequest", "the body did not come whole")
                found += message.get("body", b"")
                if len(found) > most:
                    raise _too_large(most)
                if not message.get("more_body", False):
                    return bytes(found)
    except TimeoutError:
        raise Refused(
            408,
            "RequestTimeout",
            f"the body did not come within {seconds:g} seconds",
            {"Connection": "close"},
        ) from None


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, and then goes on as the other."""
    told = False

    async def receive_again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def read_json(request: Request) -> Any:
    """The body as what its JSON says. Raises Refused (400) for what is none, or is nested too deeply."""
    raw = await request.body()
    if too_deep(raw):
        raise Refused(400, "BadRequest", f"the body is nested deeper than {DEEPEST} levels")
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        cause = _checks.printable(str(error))[:200]
        raise Refused(400, "BadRequest", f"the body is no JSON: {cause}") from None


def clamped(request: Request, name: str, default: float, low: float, high: float) -> float:
    """A number of the query, brought within bounds; `default` if there is none.

    Raises Refused (422) for what is no number.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        value = float(given) if len(given) <= 32 else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise Refused(
            422,
            "ValidationError",
            f"{name} must be a number, not {_checks.shown(given)}",
            argument=name,
        )
    return min(max(value, low), high)


def _is_at_most(value: bytes, most: int) -> bool:
    return value.isdigit() and len(value) < 20 and int(value) <= most


def _too_large(most: int) -> Refused:
    return Refused(
        413,
        "ContentTooLarge",
        f"at most {most:,} bytes are accepted: store it elsewhere and pass where it is",
        {"Connection": "close"},
    )
