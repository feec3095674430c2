"""The OpenAPI document."""

from __future__ import annotations

import json

from openapi_spec_validator import OpenAPIV31SpecValidator

from services.api.openapi import errors_of, plain_path
from services.api.routes import ROUTES, document


def test_the_document_is_valid_openapi() -> None:
    """By the specification's own schema, every reference resolved."""
    assert list(OpenAPIV31SpecValidator(json.loads(json.dumps(document()))).iter_errors()) == []


def test_every_route_is_in_it_once() -> None:
    """With its role, an id of its own, and a body where one is needed."""
    operations = {
        (method.upper(), path): operation
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    }
    assert sorted(operations) == sorted((route.method, plain_path(route.path)) for route in ROUTES)
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for route in ROUTES:
        operation = operations[route.method, plain_path(route.path)]
        assert operation["x-required-role"] == route.access
        assert ("requestBody" in operation) is (route.has_body or bool(route.upload))
        assert str(route.status) in operation["responses"]


def test_what_changes_something_takes_more_than_a_viewer() -> None:
    """And nothing but health, the login and this document is open."""
    for route in (route for route in ROUTES if route.path != "/api/v1/session"):
        assert (route.access in {"operator", "admin"}) is (route.method != "GET"), route.path
    assert {route.path for route in ROUTES if route.access == "open"} == {
        "/livez",
        "/readyz",
        "/metrics",
        "/api/v1/session",
        "/api/v1/openapi.json",
    }


def test_the_statuses_of_errors_come_from_the_register() -> None:
    """A conflict is told where ids are given by the caller."""
    (deploy,) = [route for route in ROUTES if (route.method, route.path) == ("POST", "/api/v1/deployments")]
    assert errors_of(deploy)[409] == ["duplicate_deployment"]
    assert errors_of(deploy)[401] == ["no_token", "bad_token"]
