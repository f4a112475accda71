"""`asyncworkers dashboard`: a page on this machine that shows what is in a store, live."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from asyncworkers.cli.options import address, there, use
from asyncworkers.cli.output import escaped
from asyncworkers.signals import SignalChain
from asyncworkers.store.protocol import Store
from asyncworkers.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from asyncworkers.dashboard import Dashboard
    from asyncworkers.http import Token

__all__ = ["dashboard"]

TOKEN = "ASYNCWORKERS_DASHBOARD_TOKEN"  # noqa: S105


@click.command(short_help="Show a store's queues and jobs on a page, live.")
@click.argument("url", required=False, type=address, metavar="[STORE_URL]")
@click.option(
    "--store",
    type=address,
    envvar="ASYNCWORKERS_STORE",
    show_envvar=True,
    metavar="URL",
    help="The same, as other commands have it.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8_790,
    show_default=True,
    metavar="N",
    help="The port to listen on; 0 takes a free one.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="A name under which the page may be asked for, beside those of this machine itself.",
)
@click.option(
    "--actions", is_flag=True, help="Also cancel and retry jobs, pause and resume queues."
)
def dashboard(
    *,
    url: Store | None,
    store: Store | None,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    actions: bool,
) -> int:
    """Serve a page that shows the queues and jobs of a store, such as sqlite:///jobs.db, until Ctrl-C.

    Only who knows its token gets to see it: a new one for each start, in the address that is printed.
    To listen where other machines can ask, set ASYNCWORKERS_DASHBOARD_TOKEN to a token of your own,
    put something before it that speaks TLS, and name the hosts it is asked by.
    """
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise click.ClickException(
            "the dashboard needs libraries: pip install 'asyncworkers[dashboard]'"
        )
    chosen = url or store
    if chosen is None:
        raise click.UsageError("Which store? Name its URL, as in sqlite:///jobs.db.")
    from asyncworkers.dashboard import Dashboard, StoreSource
    from asyncworkers.http import Token, check_bind

    given = os.environ.get(TOKEN)
    try:
        # The token of a start is for this machine: whoever opens a port to others has to mean it.
        check_bind(host, Token(given) if given else None)
        token = Token(given)
    except ValueError as error:
        raise click.UsageError(f"{error} ({TOKEN} gives a token).") from None
    there(chosen)
    name = escaped(chosen.path.name) if isinstance(chosen, SqliteStore) else "store"

    async def work(opened: Store) -> None:
        ending = asyncio.Event()
        try:
            app = Dashboard(
                StoreSource(opened, name),
                auth=token,
                hosts=hosts,
                actions=actions,
                ends=ending.wait,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        await _serve(app, host, port, token, ending)

    use(chosen, work)
    return 0


async def _serve(app: Dashboard, host: str, port: int, token: Token, ending: asyncio.Event) -> None:
    """Serve until a signal comes; then streams end, so that nothing holds up the end."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            """Signals are heard below: uvicorn would send itself what it heard once more at the end."""
            yield

    loop = asyncio.get_running_loop()
    listener = _listening(host, port)
    config = uvicorn.Config(
        app,
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    server = Server(config)

    def stop() -> None:
        ending.set()
        server.should_exit = True

    def heard(_number: int) -> None:
        loop.call_soon_threadsafe(stop)

    with listener, SignalChain(heard, call_previous=False):
        port = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"The dashboard is at {token.url(f'http://{shown}:{port}/')}")
        click.echo("Ctrl-C ends it.", err=True)
        await server.serve(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener
