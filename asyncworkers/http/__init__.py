"""Jobs over HTTP, behind the guard that every HTTP face of a supervisor has: see `asyncworkers.web`.

- `jobs` is the face for programs: an ASGI app to mount, which submits the functions that were
  exposed, and tells and cancels what became of them; `calls` reads what they are called with,
  `ledger` keeps what has ended, `listing` and `documents` tell of it, `openapi` describes it all.

The library it is built on is an extra, `asyncworkers[web]`.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("starlette") is None:
    raise ImportError("asyncworkers.http needs a library: pip install 'asyncworkers[web]'")

from asyncworkers.http.jobs import JobsApp
from asyncworkers.web.answers import Refused
from asyncworkers.web.events import EventStreams, Feed
from asyncworkers.web.guard import Guard, check_bind, may_act
from asyncworkers.web.token import Token

__all__ = ["EventStreams", "Feed", "Guard", "JobsApp", "Refused", "Token", "check_bind", "may_act"]
