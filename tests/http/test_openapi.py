"""The OpenAPI description of an HTTP face, and that the face does what it says."""

import asyncio
import enum
import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import httpx2
import msgspec
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from asyncworkers import Supervisor, job
from asyncworkers.http import JobsApp

HERE = "http://127.0.0.1"
Name = NewType("Name", str)


class Color(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    value: int


class Model(pydantic.BaseModel):
    inner: Inner
    items: list[Inner] = []


class Node(msgspec.Struct):
    name: str
    children: list["Node"] = []


@dataclass
class Error:
    """Of the same name as what every face has."""

    code: int


@job
async def plain(x: int, y: float = 1.5, *, name: str = "a") -> int:
    """Say x.

    With a longer text, and <tags> in it.
    """
    return x


@job
async def typed(
    color: Color,
    at: datetime,
    ident: UUID,
    price: Decimal,
    raw: bytes,
    pair: tuple[int, str],
    node: Node,
    error: Error,
    kind: Literal["a", 1] | None,
    short: Annotated[str, msgspec.Meta(max_length=3, pattern="^a")] = "a",
    maybe: list[int] | None = None,
    mapping: dict[str, Node] = {},  # noqa: B006
    name: Name = Name("n"),
) -> Node:
    """Of nearly every type there is."""
    return node


@job
async def modeled(model: Model) -> Model:
    """Of pydantic's types."""
    return model


@job
async def bare(anything, other=object) -> None:
    """Without annotations."""


FUNCTIONS = [plain, typed, modeled, bare]


def described() -> dict[str, Any]:
    """The description, as a client gets it."""
    app = JobsApp(Supervisor(), FUNCTIONS, title="Mine", version="7")
    return json.loads(json.dumps(app.openapi("/jobs")))


def test_the_description_is_valid() -> None:
    """It is OpenAPI 3.1 by its own schema, whatever the functions' types are."""
    document = described()
    validate(document, cls=OpenAPIV31SpecValidator)
    assert document["openapi"] == "3.1.0"
    assert document["info"] == {"title": "Mine", "version": "7"}
    assert document["servers"] == [{"url": "/jobs"}]


def test_a_broken_description_would_be_noticed() -> None:
    """The validator this relies on looks at what matters: parameters, references, responses."""
    document = described()
    del document["paths"]["/{id}"]["parameters"][0]["in"]
    with pytest.raises(Exception, match="in"):
        validate(document, cls=OpenAPIV31SpecValidator)


def test_arguments_are_described_by_their_annotations() -> None:
    """Names, types, defaults, what is required, and the function's own words."""
    document = described()
    post = document["paths"]["/submit/plain"]["post"]
    assert post["description"].startswith("Say x.")
    assert post["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "y": {"type": "number", "default": 1.5},
            "name": {"type": "string", "default": "a"},
        },
        "required": ["x"],
        "additionalProperties": False,
    }
    schemas = document["components"]["schemas"]
    assert {"Node", "Inner", "asyncworkers.Job", "asyncworkers.Error", "Error"} <= set(schemas)
    assert schemas["Error"]["properties"] == {"code": {"type": "integer"}}
    error = schemas["asyncworkers.Error"]["properties"]["error"]
    assert set(error["properties"]) == {"argument", "id"}


def references(part: Any) -> set[str]:
    """Every reference in a part of the description."""
    if isinstance(part, dict):
        inner = set().union(*map(references, part.values())) if part else set()
        return inner | ({part["$ref"]} if isinstance(part.get("$ref"), str) else set())
    return set().union(*map(references, part)) if isinstance(part, list) and part else set()


def test_every_reference_leads_somewhere() -> None:
    """No schema is referred to that is not there."""
    document = described()
    there = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= there


# ---- the face does what it says


def declared(document: dict[str, Any], method: str, path: str) -> set[int]:
    """The statuses that the description has for this."""
    responses = document["paths"][path][method]["responses"]
    return {int(status) for status in responses}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KNOWN = st.sampled_from(["x", "y", "name", "color", "at", "node", "kind", "model", "anything"])
BODIES = (
    st.dictionaries(KNOWN | st.text(max_size=5), JSON, max_size=6).map(json.dumps).map(str.encode)
    | JSON.map(json.dumps).map(str.encode)
    | st.binary(max_size=50)
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["host", "origin", "sec-fetch-site", "content-type", "idempotency-key", "last-event-id"]
    ),
    st.sampled_from(["", "127.0.0.1", HERE, "same-origin", "none", "application/json", "end", "7"])
    | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20),
    max_size=3,
)
QUERIES = st.dictionaries(
    st.sampled_from(["wait", "limit", "offset", "state", "function", "tag"]),
    st.sampled_from(["0", "-1", "1e9", "running", "plain", "x"]) | st.text(max_size=10),
    max_size=3,
).map(lambda query: {**query, **({"wait": "0.001"} if "wait" in query else {})})
ASKED = st.sampled_from(
    [
        *(("post", f"/submit/{name}") for name in ("plain", "typed", "modeled", "bare")),
        *(("get", path) for path in ("/", "/{id}", "/{id}/result", "/{id}/events")),
        ("post", "/{id}/cancel"),
    ]
)
RIGHT = {"origin": HERE, "content-type": "application/json"}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    asked=ASKED,
    ident=st.sampled_from(["known", "unknown"]) | st.text(max_size=10),
    body=BODIES,
    headers=HEADERS,
    query=QUERIES,
)
def test_fault_V13_whatever_is_asked_is_answered_as_described(
    asked: tuple[str, str], ident: str, body: bytes, headers: dict[str, str], query: dict[str, str]
) -> None:
    """No request, however odd, gets a status the description does not have; none is a fault (500)."""
    method, path = asked

    async def main() -> None:
        async with Supervisor() as supervisor:
            app = JobsApp(supervisor, FUNCTIONS)
            transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
            async with httpx2.AsyncClient(transport=transport, base_url=HERE) as http:
                made = await http.post("/submit/plain", content=b'{"x":1}', headers=RIGHT)
                known = made.json()["id"]
                await http.get(f"/{known}/result?wait=30")
                wanted = known if ident == "known" else ident
                sent = {**RIGHT, **headers} if method == "post" else headers
                answer = await http.request(
                    method.upper(),
                    httpx2.URL(HERE).join(path.replace("{id}", quoted(wanted))),
                    content=body if method == "post" else None,
                    headers={name: value.encode("latin-1") for name, value in sent.items()},
                    params=query,
                )
                # An empty id, or one of dots, is another path, for the client already.
                if "{id}" not in path or quoted(wanted).strip("."):
                    described = declared(app.openapi(), method, path)
                    assert answer.status_code in described, answer.text
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) >= {"type", "message"}
                for one in supervisor.jobs():
                    one.cancel()

    asyncio.run(main())


def quoted(text: str) -> str:
    """A text as a part of a path."""
    from urllib.parse import quote

    return quote(text, safe="")
