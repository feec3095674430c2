"""`images adopt|reclaim|fetch` and `registry reclaim-rules`, with a registry-pusher that answers from memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from events.envelope import Envelope
from events.messages import Adoption, ImageFetched, ImagesAdopted, ImagesReclaimed, Message, Reclaim
from tests.unit.services.cli.conftest import Shell

WEB = "docker.io/library/web:1"
Answered = Callable[[Message], Shell]


@pytest.fixture
def answered(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Answered:
    """A shell where a registry-pusher gives one answer to every command."""

    def with_answer(answer: Message) -> Shell:
        publish = shell.world.bus.publish

        async def answering(stream: str, *envelopes: Envelope) -> None:
            await publish(stream, *envelopes)
            for one in envelopes:
                await publish(stream, one.causes(answer, source="registry-pusher", subject="host"))

        monkeypatch.setattr(shell.world.bus, "publish", answering)
        return shell

    return with_answer


def test_an_adoption_prints_sizes_and_an_estimate(answered: Answered) -> None:
    """And how much is left for the next time."""
    one = Adoption(reference=WEB, origin="host", state="new", size_bytes=7_000_000, missing_bytes=5_000_000)
    answer = ImagesAdopted(
        dry_run=True, new=1, left=4, size_bytes=7_000_000, missing_bytes=5_000_000, estimated_seconds=2.0, images=(one,)
    )
    result = answered(answer).run("images", "adopt", "web:*", "--dry-run")
    assert result.exit_code == 0
    assert f"new    {WEB}" in result.output
    assert "1 images would be taken up (7.0 MB, 5.0 MB to send, about 2 s as pushes went so far)" in result.output
    assert "4 more are new" in result.output


def test_a_reclaim_prints_a_verdict_on_each_copy(answered: Answered) -> None:
    """With the reason."""
    answer = ImagesReclaimed(
        freed_bytes=7,
        images=(
            Reclaim(reference=WEB, freed=True, reason="the registry has it", freed_bytes=7),
            Reclaim(reference="docker.io/library/db:1", freed=False, reason="it is in use"),
        ),
    )
    result = answered(answer).run("images", "reclaim", "*")
    assert f"free     {WEB}" in result.output
    assert "keep     docker.io/library/db:1   0 B    it is in use" in result.output
    assert "7 B are freed on the host's engine" in result.output


def test_a_fetch_says_what_came_back(answered: Answered) -> None:
    """One line for each."""
    result = answered(ImageFetched(reference=WEB, seconds=1.5)).run("images", "fetch", "web:1")
    assert result.stdout == f"{WEB} is there again (1.5 s)\n"


def test_no_answer_is_an_exit_status(shell: Shell) -> None:
    """The work goes on, and the message says where to look."""
    result = shell.run("images", "adopt", "*", "--timeout", "0.1")
    assert result.exit_code == 5
    assert "registry-pusher" in result.output


def test_rules_are_changed_one_by_one(shell: Shell) -> None:
    """Shown, replaced by their pattern, and taken out."""
    shell.run("registry", "reclaim-rules", "*/team/*", "--after-days", "7")
    shell.run("registry", "reclaim-rules", "*", "--keep")
    assert shell.json("registry", "reclaim-rules") == {
        "rules": [{"pattern": "*/team/*", "after_days": 7.0}, {"pattern": "*", "after_days": None}]
    }
    assert "7 days" in shell.run("registry", "reclaim-rules").output
    shell.run("registry", "reclaim-rules", "*/team/*", "--remove")
    assert shell.json("registry", "reclaim-rules")["rules"] == [{"pattern": "*", "after_days": None}]


def test_a_rule_needs_a_choice(shell: Shell) -> None:
    """A pattern alone says nothing."""
    assert shell.run("registry", "reclaim-rules", "*").exit_code == 2
