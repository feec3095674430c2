"""The register of errors, and the tree that takes its codes from it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

import services
import services.errors
from events.bus import BusDenied, BusError, BusUnavailable, BusUnreachable, Permanent
from events.messages import Failure
from services.errors import (
    BadInput,
    CyroidError,
    RequestRefused,
    TransferFailed,
    Unavailable,
    of_bus,
    retry_helps,
)
from services.errors.register import REGISTER, ErrorEntry

ROOT = Path(services.errors.__file__).parents[1]
#: Of a handler's failure that is made of another one's code.
_FOREIGN = {"unknown", "crashed"}


def _classes() -> Iterator[type[CyroidError]]:
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting = [CyroidError]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += one.__subclasses__()


def _literal_codes() -> Iterator[tuple[str, str]]:
    """Every `code="…"` in services."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                yield str(node.value.value), str(path)


def test_every_error_is_in_the_tree_of_the_docstring_and_has_a_code_of_its_own() -> None:
    """Whoever adds an error draws it there, with the module it lives in."""
    told = re.findall(r"──\s(\w+)", services.errors.__doc__ or "")
    found = {
        one.__name__: one for one in _classes() if one is not CyroidError and one.__module__.startswith("services")
    }
    assert sorted(told) == sorted(found)
    for one in found.values():
        assert one.code in REGISTER
        elsewhere = one.__module__ != "services.errors"
        assert (f"({one.__module__})" in (services.errors.__doc__ or "")) is elsewhere or not elsewhere


def test_every_code_in_the_source_is_registered() -> None:
    """A code that is not registered would have no title, status or advice."""
    unknown = [(code, path) for code, path in _literal_codes() if code not in REGISTER and code not in _FOREIGN]
    assert unknown == []


def test_entries_are_whole() -> None:
    """Statuses are of HTTP and mean an error; titles and advice are sentences of their own."""
    for code, entry in REGISTER.items():
        assert re.fullmatch(r"[a-z_]+", code), code
        assert entry.http_status is None or HTTPStatus(entry.http_status) >= 400, code
        assert entry.exit_status in {1, 2, 4, 5, 6, 7}, code
        assert entry.title[0].isupper(), code
        assert entry.title[-1] != ".", code
        assert entry.advice.endswith("."), code
    titles = [entry.title for entry in REGISTER.values()]
    assert len(set(titles)) == len(titles)


def test_a_code_of_its_own_decides_the_status() -> None:
    """The code, not the class, is what callers see."""
    error = RequestRefused("no", code="too_large")
    assert (error.code, error.entry.http_status, error.entry.exit_status) == ("too_large", 413, 2)
    foreign = Unavailable("no", code="said_by_somebody_else")
    assert (foreign.code, foreign.entry.http_status, foreign.retryable) == ("said_by_somebody_else", 503, True)


def test_a_failure_carries_the_code_and_not_the_hint() -> None:
    """A hint names commands of the command line; a failure is read everywhere."""
    failure = BadInput("the name is wrong", hint="cyroid-images images ls").failure()
    assert (failure.code, failure.message, failure.retryable) == ("bad_input", "the name is wrong", False)


def test_an_error_without_a_registered_code_is_refused_when_it_is_defined() -> None:
    """Its status would be a guess."""
    with pytest.raises(KeyError):
        type("Odd", (CyroidError,), {"code": "odd"})


@pytest.mark.parametrize(
    ("error", "advised"),
    [
        (BusUnreachable("Redis is unreachable: no connection."), True),
        (BusDenied("Redis does not let us in: correct the user"), False),
        (BusUnavailable("Redis is out of memory, raise maxmemory or free some"), False),
        (BusError("something else"), False),
    ],
)
def test_one_piece_of_advice_for_each_error_of_the_bus(error: BusError, *, advised: bool) -> None:
    """Only an unreachable Redis may be at another URL; nothing ends in two stops."""
    text = str(of_bus(error))
    assert ("CYROID_REDIS_URL" in text) is advised
    assert ".;" not in text


@pytest.mark.parametrize("entry", REGISTER.values(), ids=lambda entry: entry.code)
def test_an_error_is_final_exactly_where_no_retry_helps(entry: ErrorEntry) -> None:
    """Whatever class it is raised as: a handler's worker asks the error, a deployment asks its failure."""
    for kind in (TransferFailed, Unavailable, CyroidError):
        error = kind("so it is", code=entry.code)
        assert (error.final, error.retryable) == (not entry.retryable, entry.retryable)
        assert retry_helps(error.failure()) is entry.retryable


@pytest.mark.parametrize("kind", [one for one in _classes() if one.__module__.startswith("services")])
def test_every_class_agrees_with_the_register(kind: type[CyroidError]) -> None:
    """A Permanent whose code says that a retry helps would be given up at once, and its reader told to try again."""
    assert issubclass(kind, Permanent) <= (not REGISTER[kind.code].retryable)


def test_a_code_that_nobody_knows_is_what_its_teller_says() -> None:
    """Another release's."""
    assert retry_helps(Failure(code="of tomorrow", message="?", retryable=True))
    assert not retry_helps(Failure(code="of tomorrow", message="?"))
