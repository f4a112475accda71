"""The dashboard: one page that shows live what a supervisor, or a store, does, and steers it if allowed.

- `data` says what there is to show and in which words, `live` looks at a supervisor and what is in
  its store, `stored` at a store alone, `rates` counts what ends in a second;
- `app` is the ASGI app: the page, what it asks for, and the stream of events, behind the guard of
  `asyncworkers.web`; `ticker` makes one picture a second for all who look, and none for nobody;
- `page/` is the page: HTML, CSS and JavaScript by hand, nothing that has to be built or fetched.

The library it is built on is an extra, `asyncworkers[dashboard]`.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("starlette") is None:
    raise ImportError("the dashboard needs a library: pip install 'asyncworkers[dashboard]'")

from asyncworkers.dashboard.app import Dashboard
from asyncworkers.dashboard.live import LiveSource
from asyncworkers.dashboard.stored import StoreSource

__all__ = ["Dashboard", "LiveSource", "StoreSource"]
