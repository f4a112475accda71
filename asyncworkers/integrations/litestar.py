"""For Litestar: a plugin that starts and stops the supervisor, provides it, and answers with 503."""

from __future__ import annotations

from typing import Any

from asyncworkers import Supervisor
from asyncworkers.integrations.refusal import (
    REFUSALS,
    RETRY_AFTER,
    checked_retry_after,
    refusal,
)

try:
    from litestar import Request, Response
    from litestar.config.app import AppConfig
    from litestar.di import NamedDependency, Provide
    from litestar.plugins import InitPlugin
except ImportError as error:
    raise ImportError(
        "asyncworkers.integrations.litestar needs Litestar: pip install 'asyncworkers[litestar]'"
    ) from error

__all__ = ["SupervisorDep", "SupervisorPlugin"]

SupervisorDep = NamedDependency[Supervisor]
"""The type of an argument that a plugin provides: `supervisor: SupervisorDep`."""


class SupervisorPlugin(InitPlugin):
    """`Litestar(plugins=[SupervisorPlugin(supervisor)])`.

    The supervisor lives as long as the application. Handlers get it as the dependency `name`, of type
    SupervisorDep, and `app.state` has it under that name too. What it refuses, because a queue is full or the drain
    has begun, is answered with 503 and `Retry-After: <retry_after>`. Another supervisor needs another
    plugin with another name.
    """

    def __init__(
        self, supervisor: Supervisor, name: str = "supervisor", *, retry_after: int = RETRY_AFTER
    ) -> None:
        if not isinstance(supervisor, Supervisor):
            raise TypeError(f"supervisor must be a Supervisor, not {supervisor!r:.80}")
        self.supervisor = supervisor
        self.name = name
        self.retry_after = checked_retry_after(retry_after)

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add to the application what it needs."""
        config: Any = app_config  # some of its types are not known to all checkers
        config.lifespan.append(self.supervisor.lifespan)
        config.state[self.name] = self.supervisor
        config.dependencies[self.name] = Provide(self._provide, sync_to_thread=False)
        config.signature_types.append(Supervisor)
        for kind in REFUSALS:
            config.exception_handlers.setdefault(kind, self._refuse)
        return app_config

    def _provide(self) -> Supervisor:
        return self.supervisor

    def _refuse(self, _request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        body, status, headers = refusal(error, retry_after=self.retry_after)
        kind = headers.pop("Content-Type")
        return Response(body.encode(), status_code=status, headers=headers, media_type=kind)
