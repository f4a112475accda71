"""The guard: who may ask an HTTP face, from where, and what a browser is told."""

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asyncworkers.http import Guard, Refused, Token, check_bind, may_act
from asyncworkers.web.guard import HEADERS, path_of

HERE = "http://127.0.0.1:8000"
SECRET = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {SECRET}"}
OURS = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was asked, and what the guard says of it."""
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    path = path_of(scope)
    if path == "/refused":
        raise Refused(409, "Conflict", "not now", on="now")
    if path == "/broken":
        raise RuntimeError("the secret of the app")
    body = await request.body()
    said = {"path": path, "acts": may_act(scope), "body": body.decode("latin-1")}
    await JSONResponse(said)(scope, receive, send)


def client(app: Any, base: str = HERE, peer: str = "127.0.0.1", **options: Any) -> TestClient:
    """One who asks the app, from this machine unless said otherwise."""
    return TestClient(app, base_url=base, client=(peer, 50_000), **options)


def guarded(**options: Any) -> TestClient:
    """One who asks a guarded app that knows a token."""
    options.setdefault("auth", Token(SECRET))
    return client(Guard(echo, **options))


# ---- who starts it


@pytest.mark.parametrize("hosts", [["example.com"], ["0.0.0.0"], ["10.0.0.1:80"]])
def test_fault_V05_nothing_is_open_to_others_without_auth(hosts: list[str]) -> None:
    """Names beyond loopback without `auth` are refused when the guard is made, not when it is asked."""
    with pytest.raises(ValueError, match="auth must be given"):
        Guard(echo, hosts=hosts)
    assert Guard(echo, hosts=hosts, auth=Token(SECRET))
    assert Guard(echo, hosts=["localhost", "127.0.0.1"])


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "::ffff:10.0.0.1"]
)
def test_fault_V05_no_server_starts_beyond_loopback_without_auth(host: str) -> None:
    """Whoever starts a server asks first, and is told no."""
    with pytest.raises(ValueError, match="auth must be given"):
        check_bind(host, None)
    check_bind(host, Token(SECRET))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.1", "::1", "LocalHost", "/run/a.sock", "unix:/run/a.sock"]
)
def test_loopback_needs_no_auth(host: str) -> None:
    """Loopback addresses and sockets of this machine may be listened on without `auth`."""
    check_bind(host, None)


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.7", {}),
        ("not an address", {}),
        ("127.0.0.1", {"X-Forwarded-For": "10.0.0.7"}),
        ("127.0.0.1", {"X-Forwarded-Proto": "https"}),
        ("127.0.0.1", {"Forwarded": "for=10.0.0.7"}),
        ("127.0.0.1", {"Via": "1.1 proxy"}),
    ],
)
def test_fault_V05_without_auth_no_other_machine_is_answered(
    peer: str, headers: dict[str, str]
) -> None:
    """If a server listens beyond loopback nevertheless, or a proxy does, 403 is all they get."""
    answer = client(Guard(echo), peer=peer).get("/", headers=headers)
    assert answer.status_code == 403
    assert client(Guard(echo)).get("/").status_code == 200


# ---- which host is asked


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"),
        *(
            "127.0.0.2",
            "localhost.",
            "",
            "a b",
            "127.0.0.1@evil.example",
            "[::1",
            "localhost:99999999",
        ),
    ],
)
def test_fault_V06_a_foreign_host_is_refused(host: str) -> None:
    """A page whose name was pointed at this machine by DNS asks with its own name: 403."""
    answer = guarded().get("/", headers={**BEARER, "Host": host})
    assert answer.status_code == 403, host
    assert answer.json()["error"]["type"] == "Forbidden"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:80", "a.example:9"]
)
def test_a_host_of_the_list_is_answered(host: str) -> None:
    """The names of loopback and the given ones are answered, on any port."""
    hosts = ["A.example"]
    assert guarded(hosts=hosts).get("/", headers={**BEARER, "Host": host}).status_code == 200


def test_a_host_with_a_port_means_that_port() -> None:
    """A name that was given with a port is answered on that port alone."""
    ask = guarded(hosts=["a.example:8443"]).get
    assert ask("/", headers={**BEARER, "Host": "a.example:8443"}).status_code == 200
    assert ask("/", headers={**BEARER, "Host": "a.example"}).status_code == 403


def test_fault_V06_a_request_has_one_host() -> None:
    """With two `Host` headers, or none, nobody knows which was meant."""

    async def ask(*hosts: bytes) -> int:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "scheme": "http",
            "client": None,
            "headers": [(b"host", host) for host in hosts],
        }
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        await Guard(echo)(scope, None, send)  # type: ignore[arg-type]
        return said[0]["status"]

    async def main() -> None:
        assert await ask() == 403
        assert await ask(b"localhost", b"evil.example") == 403

    asyncio.run(main())


# ---- who asks for a change

FORGED = {
    "a form of another site": {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    "a page of another port": {"Origin": "http://127.0.0.1:9", "Sec-Fetch-Site": "same-site"},
    "another scheme": {"Origin": "https://127.0.0.1:8000"},
    "no origin at all": {},
    "a hidden origin": {"Origin": "null"},
    "an origin that only begins like ours": {"Origin": f"{HERE}.evil.example"},
    "our origin, another site": {"Origin": HERE, "Sec-Fetch-Site": "cross-site"},
    "another origin, our site": {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    "an unknown word": {"Sec-Fetch-Site": "sideways"},
    "an empty one": {"Sec-Fetch-Site": ""},
    "what browsers send by themselves": {"Authorization": "Basic YTpi"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
def test_fault_V07_a_change_must_be_asked_for_by_our_own_page(headers: dict[str, str]) -> None:
    """Whoever has a valid cookie, and a page of another site uses it: 403, the app never hears of it."""
    browser = guarded(auth=lambda request: True)
    answer = browser.post("/change", json={}, headers=headers)
    assert answer.status_code == 403, answer.text
    assert browser.post("/change", json={}, headers=OURS).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        OURS,
        {"Origin": HERE},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},  # a proxy with TLS
        BEARER,
    ],
)
def test_our_own_page_and_programs_may_change(headers: dict[str, str]) -> None:
    """A page of this site may, and so may a program, which is known by its bearer token."""
    answer = guarded().post("/change", json={"a": 1}, headers={**BEARER, **headers})
    assert answer.json() == {"path": "/change", "acts": True, "body": '{"a":1}'}


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "text/json"],
)
def test_fault_V07_forms_of_other_sites_are_not_json(kind: str) -> None:
    """What a form can send without asking first is refused, whatever else is right."""
    answer = guarded().post("/", content=b"{}", headers={**BEARER, **OURS, "Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
def test_fault_V07_there_are_two_methods(method: str) -> None:
    """No other method reaches the app; and nobody is told that other sites may ask (CORS)."""
    answer = guarded().request(method, "/", headers={**BEARER, "Origin": "http://evil.example"})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_fault_V07_another_site_cannot_even_look(site: str) -> None:
    """A page of another site cannot hold our streams open; a person may follow its link."""
    browser = guarded(auth=None)
    assert browser.get("/", headers={"Sec-Fetch-Site": site}).status_code == 403
    visit = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert browser.get("/", headers=visit).status_code == 200
    frame = {**visit, "Sec-Fetch-Dest": "iframe"}
    assert browser.get("/", headers=frame).status_code == 403


# ---- tokens


@pytest.mark.parametrize(
    "given",
    [
        *("", "Bearer", "Bearer ", f"Bearer {SECRET[:-1]}", f"Bearer {SECRET}0", f"Basic {SECRET}"),
        *(SECRET, "Bearer \xff\xfe", f"Bearer {SECRET.upper()}"),
    ],
)
def test_fault_V08_a_wrong_token_is_none(given: str) -> None:
    """Anything but the whole token is answered 401; the answer does not tell what was wrong."""
    answer = guarded().get("/", headers={"Authorization": given.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.text == guarded().get("/").text


def test_fault_V08_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison with the secret goes through `compare_digest`: were it not, this would let
    everybody in who presents something.
    """
    monkeypatch.setattr("hmac.compare_digest", lambda one, other: True)
    ask = guarded()
    assert ask.get("/", headers={"Authorization": "Bearer nonsense"}).status_code == 200
    assert ask.post("/session", json={"token": "nonsense"}, headers=OURS).status_code == 204


def test_fault_V08_guessing_is_limited() -> None:
    """After ten wrong tokens in a minute an address is not listened to, right or wrong; others are."""
    app = Guard(echo, auth=Token(SECRET))
    guesser, other = client(app), client(app, peer="127.0.0.9")
    wrong = {"Authorization": "Bearer wrong"}
    told = [guesser.get("/", headers=wrong).status_code for _ in range(10)]
    assert told == [401] * 10
    answer = guesser.get("/", headers=BEARER)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert guesser.post("/session", json={"token": SECRET}, headers=OURS).status_code == 429
    assert other.get("/", headers=BEARER).status_code == 200


def test_fault_V08_a_program_with_an_old_token_does_not_lock_browsers_out() -> None:
    """What stands behind the same proxy, or on the same machine, and presents wrong tokens all the
    time keeps nobody out who has signed in; a made-up cookie counts as a wrong token does.
    """
    app = Guard(echo, auth=Token(SECRET))
    browser, program, forger = client(app), client(app), client(app)
    assert browser.post("/session", json={"token": SECRET}, headers=OURS).status_code == 204
    (name,) = browser.cookies
    for _ in range(5):
        assert program.get("/", headers={"Authorization": "Bearer old"}).status_code == 401
        assert forger.get("/", headers={"Cookie": f"{name}=9999999999.x"}).status_code == 401
    assert program.get("/", headers=BEARER).status_code == 429
    assert forger.get("/", headers={"Cookie": f"{name}=9999999999.x"}).status_code == 429
    assert browser.get("/").status_code == 200


def test_fault_V08_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses from very many addresses fill no memory."""
    monkeypatch.setattr("asyncworkers.web.token.ADDRESSES", 5)
    token = Token(SECRET)
    app = Guard(echo, auth=token)
    for number in range(20):
        client(app, peer=f"10.0.0.{number}").get("/", headers={"Authorization": "Bearer x"})
    assert len(token._wrong) == 5


def test_fault_V08_a_token_has_128_bits_and_is_not_shown() -> None:
    """A token is made of 128 random bits, a given one cannot be short, and no repr tells it."""
    one, other = Token(), Token()
    assert len(bytes.fromhex(one.secret)) == 16
    assert one.secret != other.secret
    assert one.secret not in repr(one)
    for short in ("", "admin", "x" * 31, "é" * 32, "x" * 16 + " " + "x" * 16):
        with pytest.raises(ValueError, match="secret must"):
            Token(short)
    with pytest.raises(TypeError, match="secret must be a str"):
        Token(b"x" * 32)  # type: ignore[arg-type]


def test_fault_V08_a_token_in_the_query_is_not_looked_at() -> None:
    """What stands in a query would stand in logs, so it lets nobody in; the fragment never arrives."""
    assert guarded().get(f"/?token={SECRET}").status_code == 401
    assert Token(SECRET).url(f"{HERE}/") == f"{HERE}/#token={SECRET}"


def test_fault_V08_a_browser_exchanges_the_token_for_a_cookie() -> None:
    """The cookie is out of reach of scripts and other sites, does not tell the token, and lets in."""
    browser = guarded()
    assert browser.get("/").status_code == 401
    answer = browser.post("/session", json={"token": SECRET}, headers=OURS)
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert SECRET not in cookie
    assert "Secure" not in cookie
    assert browser.get("/").json()["path"] == "/"
    assert browser.post("/session/end", json={}, headers=OURS).status_code == 204
    assert browser.get("/").status_code == 401


def test_fault_V08_over_tls_the_cookie_is_secure() -> None:
    """With TLS the cookie goes nowhere else, and no other host can plant one."""
    browser = client(Guard(echo, auth=Token(SECRET)), base="https://127.0.0.1")
    headers = {"Origin": "https://127.0.0.1"}
    cookie = browser.post("/session", json={"token": SECRET}, headers=headers).headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert browser.get("/").status_code == 200


@pytest.mark.parametrize(
    "given", ["x", "9999999999.", "9999999999.00", "x.y", "\u0663.y", "9" * 5_000]
)
def test_fault_V08_a_forged_cookie_is_none(given: str) -> None:
    """A cookie that the secret did not make, or a longer life than it was given, lets nobody in."""
    token = Token(SECRET)
    browser = client(Guard(echo, auth=token))
    answer = browser.get("/", headers={"Cookie": f"{token._name}={given}".encode()})
    assert answer.status_code == 401


def test_fault_V08_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cookie is good for twelve hours, whatever the browser thinks."""
    token = Token(SECRET)
    browser = client(Guard(echo, auth=token))
    cookie = browser.post("/session", json={"token": SECRET}, headers=OURS).headers["set-cookie"]
    sent = {"Cookie": cookie.partition(";")[0]}
    browser.cookies.clear()
    assert browser.get("/", headers=sent).status_code == 200
    import time

    later = time.time() + 12 * 3600 + 1
    monkeypatch.setattr("time.time", lambda: later)
    assert browser.get("/", headers=sent).status_code == 401


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"token":1}', b'{"token":null}', b'"x"', b""])
def test_nonsense_signs_nobody_in(body: bytes) -> None:
    """What is no token is told so, and never a fault of ours."""
    headers = {**OURS, "Content-Type": "application/json"}
    answer = guarded().post("/session", content=body, headers=headers)
    assert answer.status_code in (400, 401)
    assert "set-cookie" not in answer.headers


# ---- functions that decide


@pytest.mark.parametrize(
    ("said", "look", "change"),
    [(True, 200, 200), ("read", 200, 403), (False, 403, 403), (None, 403, 403)],
)
@pytest.mark.parametrize("awaited", [False, True])
def test_a_function_decides(said: Any, look: int, change: int, awaited: bool) -> None:
    """`auth` may be a function, `def` or `async def`: it lets in, lets look, or refuses."""

    async def answer_later(request: Request) -> Any:
        return said

    auth = answer_later if awaited else lambda request: said
    ask = guarded(auth=auth)
    assert ask.get("/").status_code == look
    assert ask.post("/", json={}, headers=OURS).status_code == change
    if look == 200:
        assert ask.get("/").json()["acts"] is (said is True)


def test_a_function_may_answer_itself() -> None:
    """A response is sent as it is, a `Refused` as an error; anything else is a mistake, and closed."""
    ask = guarded(auth=lambda request: RedirectResponse("/login"))
    assert ask.get("/", follow_redirects=False).headers["location"] == "/login"

    def refuse(request: Request) -> bool:
        raise Refused(401, "Unauthorized", "who are you?")

    assert guarded(auth=refuse).get("/").status_code == 401
    for nonsense in ("act", 1, object()):
        ask = client(Guard(echo, auth=lambda request, n=nonsense: n), raise_server_exceptions=False)
        assert ask.get("/").status_code == 500


# ---- bodies, headers, and what goes wrong


def test_fault_V13_a_body_is_bounded_before_it_is_read() -> None:
    """64 KiB come in, one more byte does not, whether it is announced or not; nor what is packed."""
    ask = guarded()
    headers = {**BEARER, "Content-Type": "application/json"}
    assert ask.post("/", content=b"x" * 65_536, headers=headers).status_code == 200
    assert ask.post("/", content=b"x" * 65_537, headers=headers).status_code == 413
    chunks = (b"x" * 1_000 for _ in range(100))
    assert ask.post("/", content=chunks, headers=headers).status_code == 413
    assert next(chunks, None) is None  # the client sends all; the app sees none of it
    for length in ("-1", "9" * 30, "x", "65537"):
        lying = {**headers, "Content-Length": length}
        assert ask.post("/", content=b"{}", headers=lying).status_code == 413
    packed = {**headers, "Content-Encoding": "gzip"}
    assert ask.post("/", content=b"{}", headers=packed).status_code == 415


def test_fault_V09_path_and_query_are_bounded() -> None:
    """A path or a query beyond its bounds is refused before anybody looks at it."""
    assert guarded().get("/?q=" + "a" * 5_000, headers=BEARER).status_code == 414
    assert guarded().get("/" + "a" * 3_000, headers=BEARER).status_code == 414


@pytest.mark.parametrize("path", ["/", "/none", "/refused", "/broken"])
@pytest.mark.parametrize("headers", [{}, BEARER, {**BEARER, "Host": "evil.example"}])
def test_every_answer_tells_the_browser_what_it_must_not_do(
    path: str, headers: dict[str, str]
) -> None:
    """Also errors, of the guard and of the app, come with every header."""
    ask = client(Guard(echo, auth=Token(SECRET)), raise_server_exceptions=False)
    answer = ask.get(path, headers=headers)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_errors_are_data_and_tell_nothing_of_the_inside() -> None:
    """An app's refusal is JSON; its fault is told to the server's log, and to nobody else."""
    ask = client(Guard(echo), raise_server_exceptions=False)
    assert ask.get("/refused").json() == {
        "error": {"type": "Conflict", "message": "not now", "on": "now"}
    }
    broken = ask.get("/broken")
    assert broken.status_code == 500
    assert "secret" not in broken.text
    with pytest.raises(RuntimeError, match="the secret of the app"):
        client(Guard(echo)).get("/broken")


def test_public_pages_need_no_token_but_the_right_host() -> None:
    """A page that is to sign in can be got before; nothing can be changed through it."""
    ask = guarded(public=["/", "/app.js"])
    assert ask.get("/").json()["acts"] is False
    assert ask.get("/app.js").status_code == 200
    assert ask.get("/app.jsx").status_code == 401
    assert ask.post("/", json={}, headers=OURS).status_code == 401
    assert ask.get("/", headers={"Host": "evil.example"}).status_code == 403


def test_it_works_under_a_mount() -> None:
    """Paths are those below the mount, and so is the cookie."""
    token = Token(SECRET)
    app = Starlette(routes=[Mount("/inner/jobs", Guard(echo, auth=token, public=["/"]))])
    browser = client(app)
    assert browser.get("/inner/jobs/").json()["path"] == "/"
    assert browser.get("/inner/jobs/x", headers=BEARER).json()["path"] == "/x"
    answer = browser.post("/inner/jobs/session", json={"token": SECRET}, headers=OURS)
    assert "Path=/inner/jobs;" in answer.headers["set-cookie"]
    assert browser.get("/inner/jobs/x").status_code == 200


def test_websockets_are_refused() -> None:
    """There are none: the handshake is answered with a refusal."""
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client(Guard(echo)).websocket_connect("/"):
        pass


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"auth": "secret"}, TypeError),
        ({"auth": 1}, TypeError),
        ({"hosts": "example.com"}, TypeError),
        ({"hosts": [1]}, TypeError),
        ({"hosts": ["https://example.com"]}, ValueError),
        ({"hosts": ["*"]}, ValueError),
        ({"max_body": -1}, ValueError),
        ({"body_seconds": 0}, ValueError),
        ({"public": "/"}, TypeError),
    ],
)
def test_what_is_no_guard_is_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    """Each argument is looked at when the guard is made, and the error names it."""
    options.setdefault("auth", Token(SECRET))
    name = next(iter(options))
    with pytest.raises(kind, match="host" if name == "hosts" else name):
        Guard(echo, **options)


@pytest.mark.asyncio
async def test_fault_V10_a_body_that_does_not_come_is_not_waited_for() -> None:
    """A body that comes a byte at a time, or not at all, is given up after its seconds."""
    said: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message)

    headers = {**BEARER, "Host": "localhost", "Content-Type": "application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "query_string": b"",
        "scheme": "http",
        "client": None,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await Guard(echo, auth=Token(SECRET), body_seconds=0.01)(scope, never, send)
    assert said[0]["status"] == 408
    assert json.loads(said[1]["body"])["error"]["type"] == "RequestTimeout"
