"""JSON as Go writes it."""

import msgspec
import pytest

from services.core.images.go_json import decode


class _Inner(msgspec.Struct):
    names: tuple[str, ...] = ()


class _Outer(msgspec.Struct):
    kind: str
    inner: _Inner = msgspec.field(default_factory=_Inner)
    annotations: dict[str, str] = {}
    size: int = 0


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind":"a"}',
        b'{"kind":"a","inner":null,"annotations":null,"size":null}',
        b'{"kind":"a","inner":{"names":null}}',
    ],
)
def test_null_is_the_default(content: bytes) -> None:
    """At every depth, for slices, maps, numbers and structures."""
    assert decode(content, _Outer) == _Outer("a")


def test_values_beside_a_null_are_kept() -> None:
    """Only the null members go."""
    assert decode(b'{"kind":"a","size":3,"annotations":{"x":null,"y":"z"},"inner":null}', _Outer) == _Outer(
        "a", annotations={"y": "z"}, size=3
    )


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind":null}',
        b"null",
        b"{",
        b"\xff",
        b'{"kind":"\xff"}',
        b'{"kind":null,"annotations":{"a":"\xb5"}}',
        b'{"kind":"a","size":"3","annotations":null}',
        b'{"kind":"a","inner":{"names":[null]}}',
        b"[" * 100_000,
    ],
)
def test_what_does_not_fit_is_one_kind_of_error(content: bytes) -> None:
    """A required field that is null, another type, no JSON, an array with null, a nesting without end."""
    with pytest.raises(msgspec.DecodeError):
        decode(content, _Outer)
