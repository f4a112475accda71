"""The description of an HTTP face in OpenAPI 3.1, made of the signatures of what it exposes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from asyncworkers import JobState
from asyncworkers.http.calls import Exposed, is_secret
from asyncworkers.store.codec import Parameter, to_json

__all__ = ["describe"]

REF: Final = "#/components/schemas/{name}"

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "number", "minimum": 0}
_DATE: Final = {"type": ["string", "null"], "format": "date-time"}

JOB: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Where a job is on its way.",
    "properties": {
        "id": {"type": "string", "description": "Names the job here."},
        "function": _TEXT,
        "queue": _TEXT,
        "state": {"enum": list(map(str, JobState))},
        "attempt": {"type": "integer", "description": "0 before the first has started."},
        "why": {"type": "string", "description": "What it waits for, or does, or how it ended."},
        "progress": {
            "type": ["object", "null"],
            "properties": {
                "done": {"type": "number"},
                "total": {"type": ["number", "null"]},
                "message": {"type": ["string", "null"]},
            },
        },
        "created": _DATE,
        "started": _DATE,
        "finished": _DATE,
    },
    "required": ["id", "function", "state"],
}

FAILURE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"type": _TEXT, "message": _TEXT, "traceback": _TEXT},
    "required": ["type", "message"],
}

SAID: Final = {
    400: "No JSON, nested too deeply, or it did not come whole.",
    401: "A token is needed.",
    403: "Not allowed: by `auth`, from this host, or from another site.",
    404: "There is no such function or job here.",
    408: "The body did not come in time.",
    409: "Another job holds the key of this one.",
    413: "The body is too large.",
    414: "The path or the query is too long.",
    415: "The body is not `application/json`, or is compressed.",
    422: "An argument is wrong; it is named.",
    429: "Too many wrong tokens came from this address.",
    503: "Nothing more is taken at the moment: try again after `Retry-After` seconds.",
}
"""What a status means, whatever it answers."""

ALWAYS: Final = (401, 403, 414, 429, 503)
WITH_BODY: Final = (*ALWAYS, 400, 408, 413, 415, 422)


def describe(
    functions: Iterable[Exposed], title: str, version: str, url: str, max_wait: float
) -> dict[str, Any]:
    """The whole description."""
    functions = list(functions)
    schemas, components = _schemas(functions)
    named = {
        "asyncworkers.Job": JOB,
        "asyncworkers.Failure": FAILURE,
        "asyncworkers.Error": {
            "type": "object",
            "properties": {
                "error": {
                    "allOf": [_ref("asyncworkers.Failure")],
                    "properties": {
                        "argument": {**_TEXT, "description": "What is wrong of what was sent."},
                        "id": {**_TEXT, "description": "The job that is in the way."},
                    },
                }
            },
            "required": ["error"],
        },
    }
    paths = {
        f"/submit/{one.name}": {"post": _submission(one, schemas[one.name][0])} for one in functions
    }
    results = [schemas[one.name][1] for one in functions]
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "servers": [{"url": url}],
        "paths": {**paths, **_common(functions, results, max_wait)},
        "components": {
            "schemas": {**components, **named},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _submission(function: Exposed, arguments: dict[str, Any]) -> dict[str, Any]:
    text = inspect.getdoc(function.function.function) or ""
    return {
        "operationId": f"submit_{function.name}",
        "summary": f"Submit {function.name}",
        "description": text,
        "tags": ["submit"],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Your name for this one call: to send it again makes no second job.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": arguments}}},
        "responses": {
            "202": _is("The job was taken.", _ref("asyncworkers.Job")),
            "200": _is("It was taken before, with this key.", _ref("asyncworkers.Job")),
            **_errors(*WITH_BODY, 404, 409),
        },
    }


def _common(
    functions: list[Exposed], results: list[dict[str, Any]], max_wait: float
) -> dict[str, Any]:
    """What there is for the jobs of every function."""
    ident = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    return {
        "/": {"get": _list(functions)},
        "/{id}": {"parameters": [ident], "get": _status()},
        "/{id}/result": {"parameters": [ident], "get": _result(results, max_wait)},
        "/{id}/events": {"parameters": [ident], "get": _events()},
        "/{id}/cancel": {"parameters": [ident], "post": _cancel()},
    }


def _list(functions: list[Exposed]) -> dict[str, Any]:
    jobs = {"type": "array", "items": _ref("asyncworkers.Job")}
    page = {
        "type": "object",
        "properties": {"jobs": jobs, "more": {"type": "boolean"}},
        "required": ["jobs", "more"],
    }
    return {
        "operationId": "list",
        "summary": "The jobs there are, newest first",
        "parameters": [
            _query("function", {"enum": [one.name for one in functions]}),
            _query("state", {"enum": list(map(str, JobState))}),
            _query("tag", {"type": "string", "minLength": 1, "maxLength": 64}),
            _query("limit", {**_NUMBER, "default": 50}, "At most 200."),
            _query("offset", {**_NUMBER, "default": 0}, "At most 10,000."),
        ],
        "responses": {"200": _is("A page of jobs.", page), **_errors(*ALWAYS, 422)},
    }


def _status() -> dict[str, Any]:
    return {
        "operationId": "status",
        "summary": "Where a job is on its way",
        "responses": {"200": _is("The job.", _ref("asyncworkers.Job")), **_errors(*ALWAYS, 404)},
    }


def _result(results: list[dict[str, Any]], max_wait: float) -> dict[str, Any]:
    end = {
        "allOf": [_ref("asyncworkers.Job")],
        "properties": {
            "result": {"anyOf": [*results, {"type": "null"}]},
            "error": {"anyOf": [_ref("asyncworkers.Failure"), {"type": "null"}]},
        },
        "required": ["result", "error"],
    }
    seconds = f"Seconds to wait for it, at most {max_wait:g}."
    return {
        "operationId": "result",
        "summary": "The result of a job, or its error",
        "parameters": [_query("wait", {**_NUMBER, "default": 0}, seconds)],
        "responses": {
            "200": _is("It has ended.", end),
            "202": _is("It has not ended yet.", _ref("asyncworkers.Job")),
            **_errors(*ALWAYS, 404, 422),
        },
    }


def _events() -> dict[str, Any]:
    return {
        "operationId": "events",
        "summary": "The progress of a job, as server-sent events",
        "description": "`job` whenever it has got on and `end` once it has ended, each with "
        "the job; `dropped` for a client that reads too slowly.",
        "responses": {
            "200": {
                "description": "A stream that ends with the job, or is to be asked for again.",
                "content": {"text/event-stream": {"schema": _TEXT}},
            },
            "204": {"description": "The end was seen (`Last-Event-ID: end`)."},
            **_errors(*ALWAYS, 404),
        },
    }


def _cancel() -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {"reason": {"type": "string", "maxLength": 200}},
    }
    asked = "`asked` is false for one that has ended already."
    return {
        "operationId": "cancel",
        "summary": "Cancel a job",
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _is(asked, _ref("asyncworkers.Job")),
            **_errors(*WITH_BODY, 404),
        },
    }


def _schemas(
    functions: list[Exposed],
) -> tuple[dict[str, tuple[dict[str, Any], dict[str, Any]]], dict[str, Any]]:
    """What each function takes and returns, and the types they are made of."""
    kinds = [
        *(parameter.annotation for one in functions for parameter in one.parameters.values()),
        *(one.codec.result for one in functions),
    ]
    inner: dict[str, Any] = {}

    def hook(kind: Any) -> dict[str, Any]:
        if is_secret(kind):
            return {"writeOnly": True, "description": "Secret: it is shown nowhere."}
        model = getattr(kind, "model_json_schema", None)  # of pydantic
        if model is None:
            return {}
        schema: dict[str, Any] = model(ref_template=REF.replace("{name}", "{model}"))
        inner.update(schema.pop("$defs", {}))
        return schema

    found, components = msgspec.json.schema_components(
        [_describable(kind, hook) for kind in kinds], schema_hook=hook, ref_template=REF
    )
    made = iter(found)
    taken: dict[str, dict[str, Any]] = {}
    for one in functions:
        properties = {
            name: _with_default(next(made), parameter) for name, parameter in one.parameters.items()
        }
        required = [n for n, p in one.parameters.items() if p.default is inspect.Parameter.empty]
        taken[one.name] = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
    return {one.name: (taken[one.name], next(made)) for one in functions}, {**components, **inner}


def _describable(kind: Any, hook: Any) -> Any:
    """The annotation, or Any for one that no schema can be made of."""
    try:
        msgspec.json.schema_components([kind], schema_hook=hook, ref_template=REF)
    except (TypeError, ValueError, RecursionError):
        return Any
    return kind


def _with_default(schema: dict[str, Any], parameter: Parameter) -> dict[str, Any]:
    if parameter.default is inspect.Parameter.empty or parameter.secret:
        return schema
    try:
        plain = msgspec.json.decode(to_json(parameter.default))
    except Exception:  # it has no form in JSON, and needs none
        return schema
    return {**schema, "default": plain}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": REF.format(name=name)}


def _is(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*statuses: int) -> dict[str, Any]:
    return {str(one): _is(SAID[one], _ref("asyncworkers.Error")) for one in sorted(set(statuses))}


def _query(name: str, schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description}
