"""For aiohttp's server: starts and stops the supervisor, a typed key for it, and answers with 503."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncworkers import Supervisor
from asyncworkers.integrations.refusal import (
    REFUSALS,
    RETRY_AFTER,
    checked_retry_after,
    refusal,
)

try:
    from aiohttp import web
except ImportError as error:
    raise ImportError(
        "asyncworkers.integrations.aiohttp needs aiohttp: pip install 'asyncworkers[aiohttp]'"
    ) from error

__all__ = ["SUPERVISOR", "refusals", "setup"]

SUPERVISOR: Final = web.AppKey("supervisor", Supervisor)
"""Where handlers find it: `request.app[SUPERVISOR]`, or `request.config_dict[SUPERVISOR]` in a
sub-application of the one that was set up."""

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


def setup(
    app: web.Application,
    supervisor: Supervisor,
    *,
    key: web.AppKey[Supervisor] = SUPERVISOR,
    retry_after: int = RETRY_AFTER,
) -> None:
    """Have the supervisor live as long as the application, be found in it, and its refusals answered.

    Another supervisor of the same application needs a `key` of its own.
    """
    if not isinstance(supervisor, Supervisor):
        raise TypeError(f"supervisor must be a Supervisor, not {supervisor!r:.80}")
    app[key] = supervisor
    app.cleanup_ctx.append(supervisor.cleanup_ctx)
    app.middlewares.append(refusals(retry_after=retry_after))


def refusals(*, retry_after: int = RETRY_AFTER) -> Middleware:
    """A middleware that answers with 503 where a queue is full or the drain has begun."""
    checked_retry_after(retry_after)

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except REFUSALS as error:
            if request.writer.output_size:
                raise  # it is answered already
            body, status, headers = refusal(error, retry_after=retry_after)
            return web.Response(text=body, status=status, headers=headers)

    return refuse
