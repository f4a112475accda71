"""Health and backlog: what a prober, a load balancer and an autoscaler are told, and what it rests on."""

import asyncio
import signal
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))
from children import PATIENCE, child

from asyncworkers import Backlog, Health, HealthApp, Queue, Supervisor, job
from asyncworkers.store.memory import MemoryData, MemoryStore


async def until(condition):
    """Turn the loop until something is so."""
    while not condition():
        await asyncio.sleep(0.001)


# ---- health


@pytest.mark.asyncio
async def test_health_follows_the_life_of_a_supervisor():
    """It is alive all the time, and ready exactly while it accepts jobs."""
    supervisor = Supervisor()
    assert supervisor.health() == Health(True, False, ("it is new, and accepts no jobs",))
    gate = asyncio.Event()
    async with supervisor:
        assert supervisor.health() == Health(True, True)
        await supervisor.submit(gate.wait)
        draining = asyncio.create_task(supervisor.drain())
        await until(lambda: supervisor.state == "draining")
        assert supervisor.health() == Health(True, False, ("it is draining, and accepts no jobs",))
        gate.set()
        await draining
    assert supervisor.health() == Health(True, False, ("it is closed, and accepts no jobs",))


@pytest.mark.asyncio
async def test_a_failed_supervisor_is_not_alive():
    """What has failed will not recover by itself: the process is to be restarted."""
    supervisor = Supervisor()
    async with supervisor:
        supervisor._state = "failed"
        health = supervisor.health()
        supervisor._state = "open"
    assert health == Health(False, False, ("it is failed, and accepts no jobs",))


@pytest.mark.asyncio
async def test_a_supervisor_whose_threads_are_all_held_is_not_ready():
    """Abandoned attempts hold every thread: blocking jobs would wait for ever."""
    release = threading.Event()
    async with Supervisor(queues=[Queue("threads", 1, kind="threads", unwind=0)]) as supervisor:
        stuck = await supervisor.submit(release.wait)
        await until(lambda: stuck.state == "running")
        stuck.cancel()
        await until(lambda: not supervisor.health().ready)
        (reason,) = supervisor.health().reasons
        assert "every thread of queue 'threads'" in reason
        release.set()
        await until(lambda: supervisor.health().ready)


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_a_supervisor_without_its_store_is_not_ready():
    """While the store cannot be reached nothing can be accepted; when it is back, it is ready again."""
    away = True

    class Away(MemoryStore):
        def lease(self, wants):
            if away:
                raise OSError("unplugged")
            return super().lease(wants)

    async with Supervisor(store=Away) as supervisor:
        while supervisor.health().ready:
            await asyncio.sleep(0.1)
        assert "the store cannot be reached" in supervisor.health().reasons[0]
        assert supervisor.health().alive
        away = False
        while not supervisor.health().ready:
            await asyncio.sleep(0.1)


@pytest.mark.asyncio
async def test_health_may_be_asked_in_any_thread():
    """The loop answers; while it is blocked it is not alive; and the thread waits for as long as it
    was told to.
    """
    with ThreadPoolExecutor(1) as pool:
        loop = asyncio.get_running_loop()
        async with Supervisor(stall=None) as supervisor:
            assert await loop.run_in_executor(pool, supervisor.health) == Health(True, True)
            asked = pool.submit(supervisor.health, patience=0.01)
            blocked = asked.result()  # this blocks the loop
        assert not blocked.alive
        assert blocked.reasons == ("its event loop has not answered for 0.01 s",)


# ---- probes


async def ask(app, path, method="GET", **scope):
    """Ask an ASGI application; its status and body."""
    sent = []

    async def send(message):
        sent.append(message)

    await app({"type": "http", "path": path, "method": method, **scope}, None, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.asyncio
async def test_probes_tell_up_or_degraded_and_nothing_else():
    """Whoever can reach the port learns no reason, no name and no number."""
    supervisor = Supervisor(name="backstage")
    app = HealthApp(supervisor)
    assert await ask(app, "/healthz") == (200, b'{"status":"up"}')
    assert await ask(app, "/readyz") == (503, b'{"status":"degraded"}')
    async with supervisor:
        assert await ask(app, "/readyz") == (200, b'{"status":"up"}')
    assert (await ask(app, "/jobs"))[0] == 404
    assert (await ask(app, "/healthz", "POST"))[0] == 405
    assert (await ask(app, "/ops/healthz", root_path="/ops"))[0] == 200


@pytest.mark.asyncio
async def test_probes_can_stand_before_an_application():
    """Its own paths are answered, everything else goes to the application."""

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"inner"})

    app = HealthApp(Supervisor(), inner, live="/live", ready="/ready")
    assert (await ask(app, "/live"))[0] == 200
    assert await ask(app, "/healthz") == (418, b"inner")
    with pytest.raises(ValueError, match="must be a path"):
        HealthApp(Supervisor(), live="healthz")
    with pytest.raises(ValueError, match="must differ"):
        HealthApp(Supervisor(), live="/a", ready="/a")


SERVED = """\
import asyncio
from asyncworkers import HealthApp, Supervisor
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

supervisor = Supervisor(grace=60)
gate = asyncio.Event()

async def drain(request):
    await supervisor.submit(gate.wait)
    app.state.draining = asyncio.create_task(supervisor.drain())
    while supervisor.state == "open":
        await asyncio.sleep(0)
    return PlainTextResponse("draining")

async def finish(request):
    gate.set()
    report = await app.state.draining
    return PlainTextResponse(str(len(report.done)))

app = Starlette(
    routes=[Route("/drain", drain), Route("/finish", finish)], lifespan=supervisor.lifespan
)
probed = HealthApp(supervisor, app)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the server is told by a signal")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_while_draining_a_server_is_alive_and_not_ready(tmp_path, loop):
    """Behind real uvicorn: a load balancer takes it out, nobody restarts it, and its jobs end."""
    (tmp_path / "probed.py").write_text(SERVED)
    script = f"""
        import uvicorn
        uvicorn.run("probed:probed", app_dir={str(tmp_path)!r}, port=0, loop={loop!r})
    """
    with child(script, loop, preamble="") as process:
        address = process.expect("unning on http://").split("unning on ")[1].split()[0]

        def get(path):
            try:
                with urllib.request.urlopen(address + path, timeout=PATIENCE) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        assert get("/readyz") == (200, b'{"status":"up"}')
        assert get("/drain") == (200, b"draining")
        assert get("/readyz") == (503, b'{"status":"degraded"}')
        assert get("/healthz") == (200, b'{"status":"up"}')
        assert get("/finish") == (200, b"1")
        process.tell(signal.SIGTERM)
        assert process.ends() in (0, -signal.SIGTERM)


# ---- backlog


@pytest.mark.virtual_time
@pytest.mark.asyncio
async def test_a_backlog_tells_how_long_the_oldest_has_waited():
    """In line by its rank: what waits longest counts, wherever it stands; delays and pauses do not."""
    gate = asyncio.Event()
    async with Supervisor(workers=1) as supervisor:
        await supervisor.submit(gate.wait)
        await asyncio.sleep(1)
        cancelled = await supervisor.submit(gate.wait)
        await asyncio.sleep(1)
        await supervisor.submit(gate.wait)
        await asyncio.sleep(3)
        await supervisor.submit(job(gate.wait, priority=5))
        await supervisor.submit(job(gate.wait, delay=100))
        await asyncio.sleep(1)
        assert supervisor.stats().queues["default"].oldest == pytest.approx(5)
        cancelled.cancel()
        backlog = await supervisor.backlog()
        assert backlog["default"] == Backlog("default", 2, 1, 1, pytest.approx(4), 1)
        assert backlog["threads"].oldest == 0
        await asyncio.sleep(95)  # to 99 s of the delay
        gate.set()
        await asyncio.sleep(4)
        assert supervisor.stats().queues["default"].oldest is None


@pytest.mark.asyncio
async def test_a_stored_backlog_is_that_of_all_processes():
    """What another supervisor on the same store has waiting and running counts as well."""
    data = MemoryData()
    gate = asyncio.Event()

    @job(name="wait")
    async def wait() -> None:
        await gate.wait()

    def make(workers):
        store = MemoryStore(data)
        return Supervisor(workers, store=lambda: store, functions=[wait])

    async with make(2) as one, make(0) as other:
        for _ in range(5):
            await one.submit(wait)
        await until(lambda: one.stats().running == 2)
        backlog = (await other.backlog())["default"]
        assert (backlog.waiting, backlog.running, backlog.workers) == (3, 2, 0)
        assert backlog.oldest >= 0
        threads = other.stats().queues["threads"].workers
        assert (await other.backlog())["threads"] == Backlog("threads", 0, 0, 0, 0.0, threads, True)
        gate.set()


@pytest.mark.asyncio
async def test_looking_at_a_backlog_is_cheap_however_long_it_is():
    """Only the first in line is looked at, not all who wait."""
    looked = 0
    gate = asyncio.Event()
    async with Supervisor(workers=1) as supervisor:
        await supervisor.submit_many(_wait_for(gate), range(5_000))
        queue = supervisor._intake.queues["default"]

        def count(frame, event, _argument):
            nonlocal looked
            looked += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            assert queue.census.oldest is not None
        finally:
            sys.setprofile(None)
        gate.set()
    assert looked < 20


def _wait_for(gate):
    async def wait(_number):
        await gate.wait()

    return wait
