"""The OpenAPI 3.1 document of a table of routes, and the table of docs/http.md."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from services.api.parameters import PATH_TYPES
from services.api.replacement import CHANGED
from services.api.route import Route
from services.errors.register import REGISTER
from services.runtime.problem_response import PROBLEM_TYPE, Problem

AnyRoute = Route[Any, Any, Any]
#: The document is OpenAPI's, and has no type of ours.
JsonObject = dict[str, Any]
_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)(:[^}]*)?}")
#: Codes that every route may answer.
_ALWAYS = ("bad_input", "bad_request", "unknown_host", "timeout", "too_large", "internal_error", "too_many")
_WITH_TOKEN = ("no_token", "bad_token", "too_many_logins", "forbidden", "redis_unavailable")
_UNSAFE = ("foreign_origin", "unsupported_media_type")
_BEGIN, _END = "<!-- routes: begin -->\n", "<!-- routes: end -->"


def openapi(routes: Sequence[AnyRoute]) -> JsonObject:
    """The document. Schemas of bodies and answers come from their Structs."""
    answers = [route.answer for route in routes if _is_struct(route.answer)]
    bodies = [route.body for route in routes if route.has_body]
    schemas, components = msgspec.json.schema_components([*answers, *bodies, Problem], ref_template=_REF)
    references = dict(zip([*map(str, answers), *map(str, bodies)], schemas, strict=False))
    paths: dict[str, JsonObject] = defaultdict(dict)
    for route in routes:
        paths[plain_path(route.path)][route.method.lower()] = _operation(route, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CYROID image distribution",
            "version": "1",
            "description": "Brings images from a host's engine to the engines of ranges.",
        },
        "servers": [{"url": "/"}],
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def plain_path(path: str) -> str:
    """`{reference:.+}` → `{reference}`."""
    return _PARAMETER.sub(r"{\1}", path)


def _operation(route: AnyRoute, references: JsonObject) -> JsonObject:
    noun = route.handler.__module__.rpartition(".")[2]
    operation: JsonObject = {
        "operationId": f"{noun}_{route.handler.__name__.strip('_')}",
        "summary": route.summary,
        "tags": [noun],
        "parameters": list(_parameters(route)),
        "responses": _responses(route, references),
        "security": [] if route.access == "open" else [{"bearer": []}],
        "x-required-role": route.access,
    }
    if route.has_body:
        schema = references[str(route.body)]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.upload:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in route.upload}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameters(route: AnyRoute) -> Iterator[JsonObject]:
    for name in (found[0] for found in _PARAMETER.findall(route.path)):
        yield {"name": name, "in": "path", "required": True, "schema": msgspec.json.schema(PATH_TYPES[name])}
    for field in msgspec.structs.fields(route.query):
        schema = msgspec.json.schema(field.type)
        yield {"name": field.encode_name, "in": "query", "required": field.required, "schema": schema}
    if route.conditional:
        yield {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}
    if CHANGED in route.errors:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "description": "The ETag of what is replaced: where it is another one by now, the answer is 412.",
            "schema": {"type": "string", "maxLength": 256},
        }
    if route.waits:
        yield {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": "`wait=SECONDS`: for how long an answer is waited for, at most 600; without it 30.",
            "schema": {"type": "string", "maxLength": 256},
        }
    if route.idempotent_by_key:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "The same key names the same request: asking again makes no second one.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 1024},
        }


def _responses(route: AnyRoute, references: JsonObject) -> JsonObject:
    problem = {"schema": {"$ref": _REF.format(name="Problem")}}
    responses: JsonObject = {}
    for status, codes in sorted(errors_of(route).items()):
        text = "; ".join(f"`{code}`: {REGISTER[code].title}" for code in codes)
        responses[str(status)] = {"description": text, "content": {PROBLEM_TYPE: problem}}
    if route.conditional:
        responses["304"] = {"description": "as it was: the ETag is the one of If-None-Match"}
    for status in (route.status, *route.other_statuses):
        described: JsonObject = responses.setdefault(str(status), {"description": HTTPStatus(status).phrase})
        if route.answer is not None:
            schema = references.get(str(route.answer), {"type": "string" if route.answer is bytes else "object"})
            kind = route.content_type.partition(";")[0]
            described["content"] = {kind: {"schema": schema}, **described.get("content", {})}
        if status == HTTPStatus.ACCEPTED:
            described["headers"] = {"Location": {"schema": {"type": "string"}, "description": "Where to follow it."}}
    return responses


def errors_of(route: AnyRoute) -> dict[int, list[str]]:
    """The error codes that a route may answer, by HTTP status."""
    codes: Iterable[str] = (
        *_ALWAYS,
        *(() if route.access == "open" else _WITH_TOKEN),
        *(() if route.method == "GET" else _UNSAFE),
        *route.errors,
    )
    found: dict[int, list[str]] = defaultdict(list)
    for code in dict.fromkeys(codes):
        found[REGISTER[code].http_status or 500].append(code)
    return found


def _is_struct(answer: Any) -> bool:
    return answer not in (None, bytes, JsonObject)


def drawn_into(page: str, routes: Sequence[AnyRoute]) -> str:
    """`page` (docs/http.md) with the table of `routes` drawn between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = [f"| `{route.method} {plain_path(route.path)}` | {route.access} | {route.summary} |" for route in routes]
    return "".join(
        [before, _BEGIN, "| route | role | what it does |\n|---|---|---|\n", "\n".join(rows), "\n", _END, after]
    )
