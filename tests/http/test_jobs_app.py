"""The HTTP face of jobs: what may be submitted, and what is told of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import msgspec
import pytest

from asyncworkers import Queue, Secret, Supervisor, Unique, current_job, job
from asyncworkers.errors import QueueFull, SupervisorClosed
from asyncworkers.http import JobsApp, Token
from asyncworkers.http.ledger import Ledger
from asyncworkers.integrations.refusal import refusal

HERE = "http://127.0.0.1"
OURS = {"Origin": HERE}
SECRET = "0123456789abcdef0123456789abcdef"


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Shape(msgspec.Struct):
    points: list[Point]
    day: date


@job
async def add(left: int, right: int = 1) -> int:
    """Add two numbers."""
    return left + right


@job
async def shape(shape: Shape, *, size: Size = Size.SMALL, when: datetime | None = None) -> Shape:
    """Give the shape back."""
    assert isinstance(shape, Shape)
    assert isinstance(shape.points[0], Point)
    assert isinstance(size, Size)
    return shape


@job
async def fail(message: str) -> None:
    """Fail."""
    raise ValueError(message)


@job
async def odd(kind: Literal["set", "object", "big", "surrogate", "deep"]) -> Any:
    """Return what JSON has no word for."""
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    return {
        "set": {1},
        "object": object(),
        "big": "x" * 2_000_000,
        "surrogate": "\ud800",
        "deep": deep,
    }[kind]


@job(tags=["slow"])
async def gated(name: Annotated[str, msgspec.Meta(max_length=20)] = "") -> str:
    """Report, and wait for the gate."""
    current_job().report(1, 2, "half")
    await GATES[asyncio.get_running_loop()].wait()
    return name


@job
def blocking(text: str) -> str:
    """Shout, in a thread."""
    return text.upper()


GATES: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}
FUNCTIONS = [add, shape, fail, odd, gated, blocking]


class Face:
    """A client of an app whose supervisor runs here."""

    def __init__(self, app: JobsApp, supervisor: Supervisor, http: httpx2.AsyncClient) -> None:
        self.app = app
        self.supervisor = supervisor
        self.http = http
        self.get = http.get

    async def post(self, path: str, body: Any = None, **options: Any) -> httpx2.Response:
        """Ask for a change as our own page does."""
        headers = {**OURS, "Content-Type": "application/json", **options.pop("headers", {})}
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body)
        return await self.http.post(path, content=content, headers=headers, **options)

    async def submit(self, function: str, **arguments: Any) -> str:
        """Submit, and return the id."""
        answer = await self.post(f"/submit/{function}", arguments)
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    async def until_running(self, ident: str) -> None:
        """Wait until the job runs."""
        while (await self.get(f"/{ident}")).json()["state"] != "running":
            await asyncio.sleep(0)

    async def result(self, ident: str) -> dict[str, Any]:
        """The end of a job."""
        answer = await self.get(f"/{ident}/result?wait=30")
        assert answer.status_code == 200, answer.text
        return answer.json()


@asynccontextmanager
async def faces(
    options: dict[str, Any] | None = None, expose: Any = FUNCTIONS, **more: Any
) -> AsyncIterator[Face]:
    """An app over a supervisor with these options."""
    gate = GATES[asyncio.get_running_loop()] = asyncio.Event()
    supervisor = Supervisor(**(options or {}))
    app = JobsApp(supervisor, expose, **more)
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1), raise_app_exceptions=True)
    try:
        async with supervisor, httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
            try:
                yield Face(app, supervisor, http)
            finally:
                gate.set()
    finally:
        del GATES[asyncio.get_running_loop()]


STORED = {"functions": FUNCTIONS}
PLACES = pytest.mark.parametrize("place", ["memory", "store"])


def options_for(place: str, folder: Path) -> dict[str, Any]:
    """The options of a supervisor whose jobs live there."""
    if place == "memory":
        return {}
    return {"store": f"sqlite:///{folder}/jobs.db", "functions": FUNCTIONS}


# ---- one job


@PLACES
@pytest.mark.asyncio
async def test_a_job_over_http(place: str, tmp_path: Path) -> None:
    """Submitted by name, it runs, and its result is told; in memory and in a store alike."""
    async with faces(options_for(place, tmp_path)) as face:
        answer = await face.post("/submit/add", {"left": 2, "right": 3})
        assert answer.status_code == 202
        told = answer.json()
        assert answer.headers["location"] == f"../{told['id']}"
        assert (told["function"], told["queue"]) == ("add", "default")
        end = await face.result(told["id"])
        assert (end["state"], end["result"], end["error"]) == ("succeeded", 5, None)
        status = (await face.get(f"/{told['id']}")).json()
        assert status["attempt"] == 1
        dates = [status["created"], status["started"], status["finished"]]
        assert all(datetime.fromisoformat(date).tzinfo for date in dates)
        if place == "memory":  # a store's own clock may be a moment away from ours
            assert dates == sorted(dates)
        assert (await face.result(await face.submit("add", left=1)))["result"] == 2
        assert (await face.result(await face.submit("blocking", text="a")))["result"] == "A"


@PLACES
@pytest.mark.asyncio
async def test_arguments_are_of_the_annotated_types(place: str, tmp_path: Path) -> None:
    """What JSON has no word for is read by the annotation, and comes back as JSON."""
    async with faces(options_for(place, tmp_path)) as face:
        given = {"points": [{"x": 1, "y": 2.5}], "day": "2026-01-02"}
        ident = await face.submit("shape", shape=given, size="large", when="2026-01-02T03:04:05Z")
        assert (await face.result(ident))["result"] == given


@PLACES
@pytest.mark.asyncio
async def test_an_error_is_data(place: str, tmp_path: Path) -> None:
    """Type and message are told; the traceback, which tells about the code, only if asked for."""
    async with faces(options_for(place, tmp_path)) as face:
        end = await face.result(await face.submit("fail", message="no such page"))
        assert (end["state"], end["result"]) == ("failed", None)
        assert end["error"] == {"type": "ValueError", "message": "no such page"}
    async with faces(options_for(place, tmp_path), tracebacks=True) as face:
        end = await face.result(await face.submit("fail", message="no such page"))
        assert "raise ValueError(message)" in end["error"]["traceback"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [("set", [1]), ("object", None), ("big", None), ("surrogate", None), ("deep", None)],
)
@pytest.mark.asyncio
async def test_a_result_that_cannot_be_told_is_said_to_be(kind: str, said: Any) -> None:
    """A result without a form in JSON, or far too large, is an error in the document, not a fault."""
    async with faces() as face:
        end = await face.result(await face.submit("odd", kind=kind))
        assert end["state"] == "succeeded"
        assert end["result"] == said
        assert (end["error"] is None) is (said is not None)
        if said is None:
            assert end["error"]["message"].startswith("the job succeeded; its result")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (Mute(), "Mute"),
        (ValueError("\ud800\0"), "ValueError"),
    ],
    ids=["mute", "unspeakable"],
)
@pytest.mark.asyncio
async def test_hostile_errors_and_messages_are_told_all_the_same(
    error: Exception, named: str
) -> None:
    """What no text can hold is escaped, whether a job raises it or reports it."""
    gate = asyncio.Event()

    async def hostile() -> None:
        current_job().report(1, message="\ud800\u202e<b>\0" + "x" * 2_000)
        await gate.wait()
        raise error

    async with faces(expose={"hostile": hostile}) as face:
        ident = await face.submit("hostile")
        await face.until_running(ident)
        progress = (await face.get(f"/{ident}")).json()["progress"]
        assert progress["message"].startswith("\\ud800\\u202e<b>\\x00xxx")
        assert len(progress["message"]) < 1_100
        gate.set()
        end = await face.result(ident)
        assert (end["state"], end["error"]["type"]) == ("failed", named)


@PLACES
@pytest.mark.asyncio
async def test_a_result_is_waited_for_in_bounds(place: str, tmp_path: Path) -> None:
    """Without `wait`, or when it is over, an unfinished job is 202; the bound is the app's."""
    async with faces(options_for(place, tmp_path), max_wait=0.05) as face:
        ident = await face.submit("gated", name="x")
        for query in ("", "?wait=0.01", "?wait=1e300", "?wait=-5", "?wait=inf"):
            answer = await face.get(f"/{ident}/result{query}")
            assert answer.status_code == 202
            assert answer.json()["state"] != "succeeded"
        GATES[asyncio.get_running_loop()].set()
        job = await face.get(f"/{ident}/result?wait=30")
        while job.status_code == 202:
            job = await face.get(f"/{ident}/result?wait=30")
        assert job.json()["result"] == "x"


@PLACES
@pytest.mark.asyncio
async def test_a_job_is_cancelled(place: str, tmp_path: Path) -> None:
    """A running job is cancelled with the reason that was given; an ended one cannot be."""
    async with faces(options_for(place, tmp_path)) as face:
        ident = await face.submit("gated")
        await face.until_running(ident)
        answer = await face.post(f"/{ident}/cancel", {"reason": "not needed"})
        assert answer.json()["asked"] is True
        end = await face.result(ident)
        assert (end["state"], end["error"]["type"]) == ("cancelled", "JobCancelled")
        assert "not needed" in end["error"]["message"]
        answer = await face.post(f"/{ident}/cancel")
        assert (answer.status_code, answer.json()["asked"]) == (200, False)


@pytest.mark.parametrize("body", [[], {"reason": 1}, {"reason": "x" * 201}, "x", 1])
@pytest.mark.asyncio
async def test_a_reason_is_a_short_text(body: Any) -> None:
    """Anything else is refused, and the job goes on."""
    async with faces() as face:
        ident = await face.submit("gated")
        answer = await face.post(f"/{ident}/cancel", body)
        assert (answer.status_code, answer.json()["error"]["argument"]) == (422, "reason")
        assert (await face.get(f"/{ident}")).json()["state"] in ("queued", "running")


@PLACES
@pytest.mark.asyncio
async def test_a_secret_comes_in_and_is_told_nowhere(
    place: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The job gets it; neither the result, nor an error, nor the log, nor the description shows it."""
    canary = "CANARY-7f3a"

    @job
    async def log_in(name: str, password: Secret[str] = Secret("CANARY-7f3a")) -> Secret[str]:  # noqa: B008
        assert password.reveal() == canary
        return password

    options = {**options_for(place, tmp_path), "functions": [log_in]} if place == "store" else {}
    async with faces(options, expose={log_in.name.split(".")[-1]: log_in}) as face:
        ident = await face.submit("log_in", name="a", password=canary)
        answers = [
            await face.get(f"/{ident}/result?wait=30"),
            await face.get("/"),
            await face.get("/openapi.json"),
            await face.post("/submit/log_in", {"name": "a", "password": [canary]}),
            await face.post("/submit/log_in", {"name": 1, "password": canary}),
        ]
        assert [one.status_code for one in answers] == [200, 200, 200, 422, 422]
        assert answers[0].json()["state"] == "succeeded"
        assert answers[0].json()["result"] == "***"
        assert canary not in "".join(one.text for one in answers) + caplog.text


# ---- what may be submitted

WRONG = {
    "missing": ("add", {}, "left"),
    "unknown": ("add", {"left": 1, "rigth": 2}, "rigth"),
    "wrong type": ("add", {"left": "1"}, "left"),
    "bool for int": ("add", {"left": True}, "left"),
    "null": ("add", {"left": None}, "left"),
    "fraction": ("add", {"left": 1.5}, "left"),
    "too long": ("gated", {"name": "x" * 21}, "name"),
    "nested": ("shape", {"shape": {"points": [{"x": "1"}], "day": "2026-01-02"}}, "shape"),
    "no date": ("shape", {"shape": {"points": [], "day": "yesterday"}}, "shape"),
    "no choice": ("shape", {"shape": {"points": [], "day": "2026-01-02"}, "size": "huge"}, "size"),
    "list for object": ("shape", {"shape": []}, "shape"),
    "a hostile name": ("add", {"left": 1, "\u202e\n<script>": 2}, "\\u202e\\n<script>"),
}


@pytest.mark.parametrize(("function", "arguments", "named"), WRONG.values(), ids=WRONG)
@PLACES
@pytest.mark.asyncio
async def test_a_wrong_argument_is_named(
    place: str, function: str, arguments: Any, named: str, tmp_path: Path
) -> None:
    """422 says which argument is wrong; nothing was submitted."""
    async with faces(options_for(place, tmp_path)) as face:
        answer = await face.post(f"/submit/{function}", arguments)
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert error["type"] == "ValidationError"
        assert error["argument"] == named
        assert (await face.get("/")).json() == {"jobs": [], "more": False}


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"1", b"null", b'"x"', b"{'a': 1}", b"\xff\xfe", b'{"left": NaN}'),
        *(b'{"left": 1}}', b"\x80\x04K\x01.", b"!!python/object", b'{"left"', b'{"left":}'),
    ],
)
@pytest.mark.asyncio
async def test_what_is_no_json_is_refused(body: bytes) -> None:
    """400, or 422 if only an argument is none; never a fault, and nothing is run that came in."""
    async with faces() as face:
        answer = await face.post("/submit/add", body)
        assert answer.status_code in (400, 422)


def bombs() -> dict[str, bytes]:
    """Bodies that are small to send and would be dear to read."""
    return {
        "deep lists": b'{"left":' + b"[" * 60_000 + b"}",
        "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        "a text that does not end": b'{"left":' + b"[" * 100 + b'"' + b'\\"' * 32_000,
        "many digits": b'{"left":' + b"9" * 64_000 + b"}",
        "many digits behind the point": b'{"left":1.' + b"9" * 64_000 + b"}",
        "a huge exponent": b'{"left":1e999999999}',
        "many keys": b'{"left":1,' + b",".join(b'"k%d":1' % n for n in range(5_000)) + b"}",
    }


@pytest.mark.parametrize("body", bombs().values(), ids=bombs())
@pytest.mark.asyncio
async def test_fault_V13_bombs_are_refused(body: bytes) -> None:
    """What is nested without end, or long without end, is refused for what it would cost."""
    async with faces() as face:
        answer = await face.post("/submit/add", body)
        assert answer.status_code in (400, 422), answer.text[:200]
        assert len(answer.content) < 2_000
        assert (await face.post("/submit/add", b" " * 65_537)).status_code == 413


HOSTILE = [
    *(
        "\0",
        "a\0b",
        "a\nb",
        "a\r\nSet-Cookie: x=1",
        "'",
        '"',
        ";",
        "a;b",
        "../add",
        "../../etc/passwd",
    ),
    *(
        "...",
        "%2e%2e%2fadd",
        "..%2fadd",
        "\u202eadd",
        "\U0001f600",
        "ADD",
        "Add",
        "add ",
        " add",
        "<script>",
    ),
    *("' OR 1=1 --", "add' AND '1'='1", "add\\", "os.system", "__import__", "builtins.eval"),
    *("add/../add", "a" * 129, "add%00", "jobs; DROP TABLE jobs", "%", "_", "*"),
]
"""Names that mean something to a path, a header, a statement, a shell, a page or an eye."""


@pytest.mark.parametrize("name", HOSTILE)
@PLACES
@pytest.mark.asyncio
async def test_fault_V03_hostile_names_find_nothing(place: str, name: str, tmp_path: Path) -> None:
    """As a function, an id, a tag or a state each is just a text that is not known, everywhere."""
    from urllib.parse import quote

    async with faces(options_for(place, tmp_path)) as face:
        kept = await face.submit("add", left=1)
        await face.result(kept)
        quoted = quote(name, safe="")
        for answer in (
            await face.post(f"/submit/{quoted}", {"left": 1}),
            await face.get(f"/{quoted}"),
            await face.get(f"/{quoted}/result"),
            await face.get(f"/{quoted}/events"),
            await face.post(f"/{quoted}/cancel"),
        ):
            assert answer.status_code in (404, 414), (name, answer.status_code)
            assert "set-cookie" not in answer.headers
        for query in ("function", "state"):
            answer = await face.get(f"/?{query}={quoted}")
            assert answer.status_code == 422
            assert answer.json()["error"]["argument"] == query
        answer = await face.get(f"/?tag={quoted}")
        assert answer.status_code == 422 or answer.json()["jobs"] == []
        key = {"Idempotency-Key": name.encode("utf-8")}
        answer = await face.post("/submit/add", {"left": 1}, headers=key)
        assert answer.status_code in (202, 422)
        assert (await face.result(kept))["result"] == 2


@pytest.mark.asyncio
async def test_only_what_is_exposed_can_be_submitted() -> None:
    """A function that is not exposed is 404, whatever else the supervisor runs."""
    async with faces(expose=[add]) as face:
        for name in ("fail", "gated", "", "print", "builtins.print"):
            assert (await face.post(f"/submit/{name}", {})).status_code == 404


@pytest.mark.asyncio
async def test_a_mapping_gives_the_names() -> None:
    """What something is called over HTTP need not be what it is called inside."""

    async def inner(x: int) -> int:
        return -x

    async with faces(expose={"negate": inner, "add-one": add}) as face:
        ident = await face.submit("negate", x=1)
        assert (await face.result(ident))["result"] == -1
        assert (await face.get(f"/{ident}")).json()["function"] == "negate"
        assert (await face.result(await face.submit("add-one", left=1)))["result"] == 2


async def anything(*args: int) -> None:
    """Take any number of arguments."""


async def keywords(**kwargs: int) -> None:
    """Take any names."""


class NoType:
    pass


async def untyped(value: NoType) -> None:
    """Take what cannot be read from JSON."""


@pytest.mark.parametrize(
    ("expose", "options", "kind", "said"),
    [
        ([], {}, ValueError, "at least"),
        (add, {}, TypeError, "expose must be"),
        ("add", {}, TypeError, "expose must be"),
        ([1], {}, TypeError, "expose must hold functions"),
        ([add, add], {}, ValueError, "two functions"),
        ({"a/b": add}, {}, ValueError, "a name that matches"),
        ({"": add}, {}, ValueError, "a name that matches"),
        ({"\u202e": add}, {}, ValueError, "a name that matches"),
        ({1: add}, {}, TypeError, "a name in expose"),
        ([lambda: None], {}, ValueError, "a name that matches"),
        ([anything], {}, TypeError, "any number of arguments"),
        ([keywords], {}, TypeError, "any number of arguments"),
        ([untyped], {}, TypeError, "argument 'value' of untyped cannot be read"),
        ([add.options(queue="none")], {}, ValueError, "no queue 'none'"),
        ([add], {"keep": -1}, ValueError, "keep must"),
        ([add], {"ttl": -1}, ValueError, "ttl must"),
        ([add], {"max_wait": float("nan")}, ValueError, "max_wait must"),
        ([add], {"tracebacks": 1}, TypeError, "tracebacks must"),
        ([add], {"streams": 16}, TypeError, "streams must"),
        ([add], {"auth": "secret"}, TypeError, "auth must"),
        ([add], {"title": None}, TypeError, "title must"),
    ],
)
def test_what_cannot_be_exposed_is_refused(
    expose: Any, options: dict[str, Any], kind: type[Exception], said: str
) -> None:
    """When the app is made, naming what is wrong, and not when somebody asks."""
    with pytest.raises(kind, match=said):
        JobsApp(Supervisor(), expose, **options)
    with pytest.raises(TypeError, match="supervisor must be"):
        JobsApp(None, [add])  # type: ignore[arg-type]


def test_a_stored_function_must_be_listed(tmp_path: Path) -> None:
    """A job that nobody could run is refused when the app is made; a queue in memory needs no list."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    with pytest.raises(ValueError, match="not among the functions"):
        JobsApp(Supervisor(store=store), [add])
    here = Queue("here", stored=False)
    assert JobsApp(Supervisor(store=store, queues=[here]), [add.options(queue="here")])


def test_fault_V05_without_auth_no_other_host_can_be_named() -> None:
    """An app that others can reach and nobody guards is refused when it is made."""
    with pytest.raises(ValueError, match="auth must be given"):
        JobsApp(Supervisor(), [add], hosts=["jobs.example.com"])
    assert JobsApp(Supervisor(), [add], hosts=["jobs.example.com"], auth=Token())


# ---- who may ask


@pytest.mark.asyncio
async def test_fault_V05_an_app_that_is_reached_from_elsewhere_answers_nobody() -> None:
    """Mounted on a server that listens beyond loopback, without `auth`, it is 403 to the world."""
    supervisor = Supervisor()
    app = JobsApp(supervisor, [add])
    transport = httpx2.ASGITransport(app, client=("192.0.2.7", 1))
    async with supervisor, httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
        headers = {**OURS, "Content-Type": "application/json"}
        answer = await http.post("/submit/add", content=b'{"left":1}', headers=headers)
        assert answer.status_code == 403
        assert (await http.get("/openapi.json")).status_code == 403


PATHS = ("/", "/openapi.json", "/x", "/x/result", "/x/events", "/submit/add")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.asyncio
async def test_fault_V07_no_get_changes_anything(path: str) -> None:
    """Whatever is got, no job is made, cancelled or forgotten by it."""
    async with faces() as face:
        ident = await face.submit("gated", name="kept")
        await face.until_running(ident)
        path = path.replace("x", ident)
        for query in ("", "?left=1", "?reason=x", "?_method=POST"):
            if not path.endswith("/events"):
                await face.get(f"{path}{query}")
        await face.get(f"/{ident}/cancel")
        jobs = (await face.get("/")).json()["jobs"]
        assert [(one["id"], one["state"]) for one in jobs] == [(ident, "running")]


@pytest.mark.parametrize("path", ["/submit/add", "/x/cancel"])
@pytest.mark.asyncio
async def test_fault_V07_no_other_site_changes_anything(path: str) -> None:
    """Each path that changes something stands behind the guard."""
    async with faces() as face:
        ident = await face.submit("gated")
        for headers in (
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Content-Type": "text/plain"},
            {"Host": "evil.example"},
        ):
            answer = await face.post(path.replace("x", ident), {"left": 1}, headers=headers)
            assert answer.status_code in (403, 415)
        assert len((await face.get("/")).json()["jobs"]) == 1


@pytest.mark.asyncio
async def test_who_may_look_may_not_submit() -> None:
    """A function that says "read" lets its caller look at jobs, and change nothing."""
    async with faces(auth=lambda request: "read") as face:
        assert (await face.post("/submit/add", {"left": 1})).status_code == 403
        assert (await face.get("/")).status_code == 200


@pytest.mark.asyncio
async def test_fault_V08_the_token_is_nowhere_told() -> None:
    """No answer has the token in it: neither the description nor an error."""
    async with faces(auth=Token(SECRET)) as face:
        for path in PATHS:
            for headers in ({}, {"Authorization": f"Bearer {SECRET}"}):
                answer = await face.get(path, headers=headers)
                assert SECRET not in answer.text + str(answer.headers)
        assert SECRET not in repr(face.app)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=1000000000", "limit=0", "limit=-5", "limit=1e308", "limit=inf", "offset=1e18"),
        *("refresh=0&q=(a%2B)%2B$", "tag=(a%2B)%2B$", "limit=1&limit=999999"),
    ],
)
@PLACES
@pytest.mark.asyncio
async def test_fault_V09_queries_are_clamped(place: str, query: str, tmp_path: Path) -> None:
    """Numbers are brought within bounds, what is not known is not looked at, and there is no pattern."""
    async with faces(options_for(place, tmp_path)) as face:
        for number in range(3):
            await face.submit("add", left=number)
        answer = await face.get(f"/?{query}")
        assert answer.status_code == 200
        assert len(answer.json()["jobs"]) <= 3


@pytest.mark.parametrize(
    "query", ["limit=", "limit=x", "limit=nan", "offset=1;2", "limit=" + "9" * 40]
)
@pytest.mark.asyncio
async def test_fault_V09_a_query_that_is_no_number_is_refused(query: str) -> None:
    """What cannot be brought within bounds is named."""
    async with faces() as face:
        answer = await face.get(f"/?{query}")
        assert answer.status_code == 422
        assert answer.json()["error"]["argument"] == query.partition("=")[0]


@pytest.mark.asyncio
async def test_fault_V09_a_page_has_two_hundred_jobs_at_most() -> None:
    """However many there are and are asked for."""
    async with faces() as face:
        for number in range(210):
            await face.submit("add", left=number)
        page = (await face.get("/?limit=100000")).json()
        assert (len(page["jobs"]), page["more"]) == (200, True)
        rest = (await face.get("/?limit=200&offset=200")).json()
        assert (len(rest["jobs"]), rest["more"]) == (10, False)
        ids = [one["id"] for one in (*page["jobs"], *rest["jobs"])]
        assert len(set(ids)) == 210


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "//etc/passwd",
        "/static/../../x",
        "/.git/config",
    ],
)
@pytest.mark.asyncio
async def test_fault_V17_a_path_leads_to_no_file(path: str, tmp_path: Path) -> None:
    """There is a fixed table of paths, and no file behind any."""
    (tmp_path / "secret.txt").write_text("secret")
    async with faces() as face:
        scope_path = httpx2.URL(HERE + path)
        answer = await face.http.get(scope_path)
        assert answer.status_code == 404
        assert answer.json()["error"]["type"] in ("NotFound", "JobNotFound")


@pytest.mark.asyncio
async def test_fault_V18_ids_cannot_be_guessed() -> None:
    """Ids are 128 random bits, not those that count inside; another app's are not known here."""
    async with faces() as face:
        ids = [await face.submit("gated") for _ in range(20)]
        assert len({bytes.fromhex(ident) for ident in ids}) == 20
        assert all(len(ident) == 32 for ident in ids)
        inside = face.supervisor.jobs()
        assert len(inside) == 20
        for one in inside:
            assert (await face.get(f"/{one.id}")).status_code == 404
            assert one.id not in ids
        other = JobsApp(face.supervisor, FUNCTIONS)
        transport = httpx2.ASGITransport(other, client=("127.0.0.1", 1))
        async with httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
            assert (await http.get(f"/{ids[0]}")).status_code == 404
            assert (await http.get("/")).json()["jobs"] == []


@pytest.mark.asyncio
async def test_fault_V18_stored_ids_cannot_be_guessed_either(tmp_path: Path) -> None:
    """Those of stored jobs are 128 random bits too; jobs of what is not exposed are not told of."""
    options = options_for("store", tmp_path)
    async with faces(options, expose=[add]) as face:
        ids = [await face.submit("add", left=n) for n in range(20)]
        numbers = [int(ident, 16) for ident in ids]
        assert all(len(ident) == 32 for ident in ids)
        assert numbers != sorted(numbers)  # no time in them: one chance in 20! to fail
        hidden = await face.supervisor.submit(fail, "hidden")
        assert isinstance(await hidden.wait(30), object)
        assert (await face.get(f"/{hidden.id}")).status_code == 404
        assert (await face.post(f"/{hidden.id}/cancel")).status_code == 404
        assert {one["function"] for one in (await face.get("/")).json()["jobs"]} == {"add"}


# ---- the same call twice


@PLACES
@pytest.mark.asyncio
async def test_a_key_makes_one_job(place: str, tmp_path: Path) -> None:
    """The same call with the same key is answered with the job there is, however often it comes."""
    async with faces(options_for(place, tmp_path)) as face:
        key = {"Idempotency-Key": "8a7b6c5d"}
        answers = [await face.post("/submit/add", {"left": 7}, headers=key) for _ in range(3)]
        assert [one.status_code for one in answers] == [202, 200, 200]
        assert len({one.json()["id"] for one in answers}) == 1
        assert answers[1].headers["idempotent-replayed"] == "true"
        ident = answers[0].json()["id"]
        assert (await face.result(ident))["result"] == 8
        again = await face.post("/submit/add", {"left": 7}, headers=key)
        assert (again.status_code, again.json()["id"]) == (200, ident)
        other = await face.post("/submit/add", {"left": 8}, headers=key)
        assert other.status_code == 422
        assert other.json()["error"]["type"] == "IdempotencyKeyReused"
        elsewhere = await face.post("/submit/fail", {"message": "x"}, headers=key)
        assert elsewhere.status_code == 202  # a key is one function's


@PLACES
@pytest.mark.asyncio
async def test_a_key_that_comes_many_times_at_once_makes_one_job(
    place: str, tmp_path: Path
) -> None:
    """Also if the second comes before the first was answered."""
    async with faces(options_for(place, tmp_path)) as face:
        key = {"Idempotency-Key": "one"}
        answers = await asyncio.gather(
            *(face.post("/submit/add", {"left": 7}, headers=key) for _ in range(10))
        )
        assert len({one.json()["id"] for one in answers}) == 1
        assert len((await face.get("/")).json()["jobs"]) == 1


@PLACES
@pytest.mark.asyncio
async def test_a_key_is_of_one_call_whichever_arguments_tell_them_apart(
    place: str, tmp_path: Path
) -> None:
    """A call that differs only in what is passed by name is another one, also if both come at
    once, and also for a process that did not take the first: nothing is said to be done that is not.
    """

    @job(name="pay")
    async def pay(account: str, *, cents: int) -> int:
        return cents

    options = {**options_for(place, tmp_path), "functions": [pay]}
    first, second = {"account": "A1", "cents": 995}, {"account": "A1", "cents": 1}
    async with faces(options, expose=[pay]) as face:
        key = {"Idempotency-Key": "one"}
        assert (await face.post("/submit/pay", first, headers=key)).status_code == 202
        assert (await face.post("/submit/pay", first, headers=key)).status_code == 200
        assert (await face.post("/submit/pay", second, headers=key)).status_code == 422
        key = {"Idempotency-Key": "two"}
        sent = (face.post("/submit/pay", one, headers=key) for one in (first, second))
        assert sorted([one.status_code for one in await asyncio.gather(*sent)]) == [202, 422]
    if place == "store":
        async with faces(options, expose=[pay]) as face:
            key = {"Idempotency-Key": "one"}
            assert (await face.post("/submit/pay", first, headers=key)).status_code == 200
            assert (await face.post("/submit/pay", second, headers=key)).status_code == 422


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\x7fb", "ü".encode()])
@pytest.mark.asyncio
async def test_a_senseless_key_is_refused(key: bytes) -> None:
    """Before anything is submitted."""
    async with faces() as face:
        answer = await face.post("/submit/add", {"left": 1}, headers={"Idempotency-Key": key})
        assert answer.status_code == 422
        assert (await face.get("/")).json()["jobs"] == []


@pytest.mark.asyncio
async def test_a_job_that_holds_the_key_is_found_whatever_its_id(tmp_path: Path) -> None:
    """With `unique` the answer may be a job that Python code gave an id of its own."""

    @job(unique="one")
    async def only(number: int) -> int:
        await GATES[asyncio.get_running_loop()].wait()
        return number

    @job(name="rejecting", unique=Unique("two", on_duplicate="reject"))
    async def rejecting() -> None:
        await GATES[asyncio.get_running_loop()].wait()

    options = {**options_for("store", tmp_path), "functions": [only, rejecting]}
    async with faces(options, expose={"only": only, "rejecting": rejecting}) as face:
        await face.supervisor.submit(only.bind(7).with_id("\u65e5 %2F;\u00fc"))
        answer = await face.post("/submit/only", {"number": 8})
        assert answer.status_code == 202
        assert answer.json()["id"] == "\u65e5 %2F;\u00fc"
        found = await face.get(answer.url.join(answer.headers["location"]))
        assert found.json()["id"] == "\u65e5 %2F;\u00fc"
        first = await face.submit("rejecting")
        second = await face.post("/submit/rejecting")
        assert (second.status_code, second.json()["error"]["id"]) == (409, first)
        GATES[asyncio.get_running_loop()].set()
        end = await face.get(str(found.url) + "/result?wait=30")
        assert end.json()["result"] == 7


# ---- when there is no room, and at the end


@pytest.mark.asyncio
async def test_a_full_queue_is_503() -> None:
    """Who submits more than the queue takes is told to come back."""
    async with faces({"workers": 1, "maxsize": 1}) as face:
        first = await face.submit("gated")
        await face.until_running(first)
        await face.submit("gated")
        answer = await face.post("/submit/gated", {})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"]["type"] == "QueueFull"
        # Also where an application answers by itself: byte by byte the same.
        assert answer.text == refusal(QueueFull()).body


@PLACES
@pytest.mark.asyncio
async def test_a_draining_supervisor_is_503(place: str, tmp_path: Path) -> None:
    """While it drains nothing is taken, and what there is can be asked for."""
    async with faces(options_for(place, tmp_path)) as face:
        ident = await face.submit("gated", name="running")
        await face.until_running(ident)
        drain = asyncio.create_task(face.supervisor.drain(30))
        await face.supervisor.wait_draining()
        answer = await face.post("/submit/add", {"left": 1})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.text == refusal(SupervisorClosed("", "draining")).body
        assert (await face.get(f"/{ident}")).json()["state"] == "running"
        GATES[asyncio.get_running_loop()].set()
        await drain
        assert (await face.result(ident))["result"] == "running"


@pytest.mark.asyncio
async def test_before_the_start_everything_is_503() -> None:
    """An app whose supervisor nobody has entered says so, and takes nothing."""
    app = JobsApp(Supervisor(), [add])
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
        headers = {**OURS, "Content-Type": "application/json"}
        answer = await http.post("/submit/add", content=b'{"left":1}', headers=headers)
        assert answer.status_code == 503
        assert (await http.get("/x")).status_code == 404
        assert (await http.get("/openapi.json")).status_code == 200


# ---- what is remembered


@pytest.mark.asyncio
async def test_ended_jobs_are_remembered_within_bounds() -> None:
    """Of those that have ended so many are kept, the newest; those that have not are all kept."""
    async with faces(keep=10) as face:
        waiting = await face.submit("gated")
        ids = []
        for number in range(50):
            ids.append(await face.submit("add", left=number))
            await face.result(ids[-1])
        listed = [one["id"] for one in (await face.get("/?limit=200")).json()["jobs"]]
        assert listed[-1] == waiting
        assert listed[:-1] == ids[::-1][: len(listed) - 1]
        assert 10 <= len(listed) - 1 <= 11
        assert (await face.get(f"/{ids[0]}")).status_code == 404
        answer = await face.get(f"/{ids[0]}/result")
        assert "known only to the process that took them" in answer.json()["error"]["message"]
        assert (await face.get(f"/{waiting}")).json()["state"] == "running"


@pytest.mark.asyncio
async def test_the_ledger_stays_small_while_jobs_come_and_go() -> None:
    """It never holds more ended jobs than its bound and a tenth, nor keys without their job."""
    async with faces() as face:
        ledger = Ledger(100, 3_600)
        for number in range(1_000):
            done = await face.supervisor.submit(add, number)
            await done
            ledger.add(done, "add", str(number), b"")
            assert len(ledger) <= 111
        assert len(ledger._keys) == len(ledger)
        assert ledger.of_key("add", "0") is None
        assert ledger.of_key("add", "999") is not None


@pytest.mark.asyncio
async def test_ended_jobs_are_forgotten_after_their_time() -> None:
    """With `ttl=0` a job is gone as soon as it has ended, and its key can be used anew."""
    async with faces(ttl=0) as face:
        key = {"Idempotency-Key": "again"}
        first = (await face.post("/submit/add", {"left": 1}, headers=key)).json()["id"]
        while (await face.get(f"/{first}")).status_code != 404:
            await asyncio.sleep(0)
        second = await face.post("/submit/add", {"left": 2}, headers=key)
        assert second.status_code == 202
        assert second.json()["id"] != first


# ---- lists


@PLACES
@pytest.mark.asyncio
async def test_jobs_are_listed(place: str, tmp_path: Path) -> None:
    """Newest first, by function, state and tag, a page at a time."""
    async with faces(options_for(place, tmp_path)) as face:
        sums = [await face.submit("add", left=n) for n in range(3)]
        for ident in sums:
            await face.result(ident)
        waits = await face.submit("gated")
        await face.until_running(waits)

        async def listed(query: str) -> list[str]:
            return [one["id"] for one in (await face.get(f"/?{query}")).json()["jobs"]]

        assert set(await listed("")) == {*sums, waits}
        assert await listed("function=gated") == [waits]
        assert await listed("state=succeeded") == sums[::-1]
        assert await listed("state=running&function=add") == []
        assert await listed("tag=slow") == [waits]
        assert await listed("limit=2&state=succeeded") == sums[:0:-1]
        assert await listed("limit=2&offset=2&state=succeeded") == sums[:1]
        first = (await face.get("/?limit=1")).json()
        assert first["more"] is True


@pytest.mark.asyncio
async def test_jobs_in_memory_and_in_the_store_are_listed_together(tmp_path: Path) -> None:
    """With both kinds of queue they come in one order."""
    here = Queue("here", stored=False)
    options = {**options_for("store", tmp_path), "queues": [here]}
    quick = add.options(queue="here")
    async with faces(options, expose={"stored": add, "quick": quick}) as face:
        ids = []
        for name in ("stored", "quick", "stored", "quick"):
            ids.append(await face.submit(name, left=1))
            await face.result(ids[-1])
        listed = (await face.get("/")).json()["jobs"]
        assert {one["id"] for one in listed} == set(ids)
        assert sorted(one["function"] for one in listed) == ["quick"] * 2 + ["stored"] * 2
