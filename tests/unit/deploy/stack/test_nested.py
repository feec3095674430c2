"""What a nested engine needs here is found out by trying."""

from __future__ import annotations

import pytest

from deploy.lab.commands import LabError
from deploy.stack import nested


@pytest.mark.parametrize(("refused", "options"), [(0, nested.PRIVILEGED), (1, nested.LESS)])
def test_less_is_taken_where_privileged_is_refused(
    refused: int, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that starts, most usual first."""
    tried: list[tuple[str, ...]] = []

    def docker(*words: str, seconds: float) -> str:
        tried.append(words)
        if len(tried) <= refused:
            raise LabError("unable to apply caps")
        return ""

    monkeypatch.setattr(nested, "docker", docker)
    assert nested.nested_options("range:1") == options
    assert all(words[-1] == "range:1" for words in tried)


def test_a_machine_that_allows_neither_says_both_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each as the engine said it."""
    reasons = iter(["unable to apply caps", "operation not permitted"])

    def docker(*words: str, seconds: float) -> str:
        raise LabError(next(reasons))

    monkeypatch.setattr(nested, "docker", docker)
    with pytest.raises(LabError, match=r"unable to apply caps\noperation not permitted"):
        nested.nested_options("range:1")
