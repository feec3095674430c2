"""Requests to the HTTP API from the command line."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from services.cli import main
from services.cli.api import parse_fields, show
from services.cli.remote import ApiProblem, decoded, full_url
from services.errors import BadInput


def test_fields_become_an_object() -> None:
    """Text as it stands, lists by brackets or repetition, everything else as JSON."""
    assert parse_fields(["range_id=range-7", "images[]=web:1", "priority:=9", "force:=true"]) == {
        "range_id": "range-7",
        "images": ["web:1"],
        "priority": 9,
        "force": True,
    }
    assert parse_fields(["image=a", "image=b", "image=c"]) == {"image": ["a", "b", "c"]}
    assert parse_fields(["text=a=b"]) == {"text": "a=b"}


@pytest.mark.parametrize("field", ["nothing", "=x", ":=1", "[]=1", "n:=no JSON"])
def test_what_is_no_field_is_an_error_of_usage(field: str) -> None:
    """Before anything is sent."""
    with pytest.raises(click.UsageError):
        parse_fields([field])


def test_a_path_is_below_the_interfaces_version() -> None:
    """Unless it begins with a slash; an address without a scheme is refused."""
    assert full_url("http://host:1/", "ranges") == "http://host:1/api/v1/ranges"
    assert full_url("http://host:1", "/readyz") == "http://host:1/readyz"
    with pytest.raises(BadInput, match="http://HOST:PORT"):
        full_url("host:1", "ranges")


def test_errors_of_the_api_keep_their_code_and_exit_status() -> None:
    """An error that this version does not know is one all the same."""
    document = b'{"code":"redis_unavailable","detail":"away","status":503}'
    with pytest.raises(ApiProblem, match="away") as refused:
        decoded(503, "application/problem+json", document)
    assert (refused.value.code, refused.value.entry.exit_status) == ("redis_unavailable", 4)
    with pytest.raises(ApiProblem, match="the API answered 418"):
        decoded(418, "text/html", b"<html>")
    with pytest.raises(BadInput, match="no JSON"):
        decoded(200, "application/json", b"<html>")


def test_a_list_is_printed_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Of its short fields; text from a range cannot steer the terminal."""
    show({"items": [{"range_id": "evil\x1b[2J", "images": 3, "more": [1], "gone": None}], "next": "abc"}, False)
    out = capsys.readouterr()
    assert out.out.splitlines()[0].split() == ["RANGE_ID", "IMAGES", "GONE"]
    assert "\x1b" not in out.out
    assert "cursor=abc" in out.err
    show({"healthy": True}, False)
    assert capsys.readouterr().out == "healthy: true\n"


def test_an_api_that_is_away_is_one_line() -> None:
    """With the exit status of a dependency that is unavailable."""
    done = CliRunner().invoke(main, ["api", "get", "ranges", "--api", "http://127.0.0.1:1"])
    assert done.exit_code == 4
    assert "the API does not answer" in done.output
