"""The parser of paths, queries and bodies."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from multidict import MultiDict

from services.api.deployments import DeployBody
from services.api.parameters import read_body, read_path, read_query
from services.api.ranges import ForgetQuery, VerificationQuery
from services.errors import BadInput
from services.queries.read_model.listing import ListQuery


def test_values_become_what_the_type_says() -> None:
    """Numbers, flags, and lists that may be repeated; what is left out has its default."""
    assert read_query(MultiDict({"limit": "7"}), ListQuery) == ListQuery(limit=7)
    assert read_query(MultiDict(), ListQuery) == ListQuery(limit=50)
    assert read_query(MultiDict({"force": "true"}), ForgetQuery) == ForgetQuery(force=True)
    twice = MultiDict([("image", "a"), ("image", "b")])
    assert read_query(twice, VerificationQuery) == VerificationQuery(image=["a", "b"])


@pytest.mark.parametrize(
    ("query", "kind", "told"),
    [
        ([("limit", "0")], ListQuery, "limit must be a number from 1 to 1000, not '0'"),
        ([("limit", "٣")], ListQuery, "limit must be a number"),
        ([("limit", "1" * 5000)], ListQuery, "limit must be a number"),
        ([("limit", "1"), ("limit", "2")], ListQuery, "the parameter limit 2 times"),
        ([("last", "1")], ListQuery, "no parameter 'last'; there are: limit"),
        ([("force", "yes")], ForgetQuery, "force must be true or false, not 'yes'"),
        ([("image", "a\0")], VerificationQuery, "no text"),
        ([("image", "\udcff")], VerificationQuery, "no text"),
    ],
)
def test_what_does_not_fit_is_named(query: list[tuple[str, str]], kind: type[msgspec.Struct], told: str) -> None:
    """With what would fit, and never at length."""
    with pytest.raises(BadInput, match=told) as raised:
        read_query(MultiDict(query), kind)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("value", ["a/b", "*", "", "a" * 129, "..", "a\n"])
def test_a_path_has_ids_only(value: str) -> None:
    """An id becomes a part of keys and of patterns of keys."""
    with pytest.raises(BadInput, match="range_id must be"):
        read_path({"range_id": value})
    assert read_path({"range_id": "range-7", "reference": "a/b:1"}) == {"range_id": "range-7", "reference": "a/b:1"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b'{"range_id": "r", "images": ["\xff"]}', "no JSON"),
        (b"[" * 100_000, "no JSON|nested|Expected"),
        (b'{"range_id": "r"}', "missing required field `images`"),
        (b'{"range_id": "r", "images": [], "x": 1}', "unknown field `x`"),
    ],
)
def test_a_body_is_read_as_its_type(content: bytes, told: str) -> None:
    """Whatever comes is either that or a clear error."""
    with pytest.raises(BadInput, match=told):
        read_body(content, DeployBody)


def test_an_empty_body_counts_as_an_empty_object() -> None:
    """Cancelling needs none."""

    class Nothing(msgspec.Struct):
        pass

    found: Any = read_body(b"", Nothing)
    assert found == Nothing()
