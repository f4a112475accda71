"""Answers: what an HTTP face says, an error as data included, and the exception that becomes one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

__all__ = ["Json", "Refused"]

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The content as JSON; what JSON has no word for as text."""
        return _encode(content)


class Refused(Exception):
    """Raised to answer a request with an error: its status, the name of its kind, and a sentence.

    `Guard` makes the answer: `{"error": {"type": ..., "message": ...}}`, and what else is given.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers
        self.more = more

    def answer(self) -> Response:
        """The answer that says so."""
        error = {"type": self.kind, "message": self.message, **self.more}
        return Json({"error": error}, self.status, self.headers)
