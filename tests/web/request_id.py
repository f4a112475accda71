"""A request's id, and a job for processes that sees it."""

from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="none")


def with_request_id() -> str:
    """The id of the request that submitted this job."""
    return request_id.get()
