"""Integrations: how a framework's application starts a supervisor, stops it and reaches it.

- `refusal`: what a client is told whose job was not accepted; needs no library.
- `asgi`: what any ASGI application can use: a middleware, and a lifespan for those that have none.
- `fastapi`, `litestar`, `aiohttp`: what each of these has beside that.

Each is imported by whoever uses it, and needs the library it is named after.
"""

from __future__ import annotations

__all__: list[str] = []
