"""Schemathesis over the OpenAPI document, against a real API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import status_code_conformance

from deploy.machine.polling import poll
from tests.laboratory import Lab, System
from tests.page.operator import answers

pytestmark = pytest.mark.real

#: It answers without an end.
LEFT_OUT = "/api/v1/events"
#: Some wait for a role, which this installation has not: what they would do to the shared registry is nobody's test.
IMPATIENT = {"Prefer": "wait=0"}
#: The engine would look for registries on a network that is not there, and 503 is the right answer.
PULLS = "/api/v1/images/import"
CHECKS: list[CheckFunction] = [not_a_server_error, status_code_conformance]


@pytest.fixture
def api_system(lab: Lab, page_system: System) -> Iterator[System]:
    """An API over data of its own, for requests that nobody would send."""
    system = System(
        lab=lab,
        redis=page_system.redis,
        registry=page_system.registry,
        host=page_system.host,
        ranges={},
        prefix="schema",
    )
    server = system.services("api", "tracker", name="schema-api")
    assert poll(lambda: answers(system.api_url), seconds=60)
    yield system
    server.stop()


def test_no_request_gets_an_undocumented_answer(api_system: System) -> None:
    """Nor a server error, whatever parameters and bodies are sent."""
    schema = schemathesis.openapi.from_url(f"{api_system.api_url}/api/v1/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation: Any = found.ok()
        if operation.path in (PULLS, LEFT_OUT):
            continue

        @given(case=operation.as_strategy())
        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        def ask(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60, headers=IMPATIENT)

        ask()
        tried += 1
    assert tried > 20
