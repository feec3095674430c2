"""`registry` and `images rm`, with a collector that answers from memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from events.bus import Outcome
from events.envelope import Envelope
from events.messages import (
    CollectProgress,
    DeletionPlanned,
    Failure,
    ImageDeleted,
    ImageDeleteRefused,
    RegistryCollected,
    RegistryRestored,
    RetentionPlanned,
    RetentionVerdict,
)
from events.records import ANY
from events.streams import Streams
from services.cli.registry import FAILED_STATUS
from services.core.store.figures import (
    ImageFigures,
    LayerFigures,
    RepositoryFigures,
    StoreDetails,
    StoreFigures,
    details_key,
    figures_key,
)
from services.core.store.growth import StoreGrowth, StoreSample, growth_key
from services.core.store.quarantine import Quarantine, QuarantinedBlob, quarantine_key
from tests.unit.services.cli.conftest import Shell

DIGEST = "sha256:" + "1" * 64


Answer = RegistryCollected | ImageDeleted | ImageDeleteRefused | DeletionPlanned | RegistryRestored | RetentionPlanned


@pytest.fixture
def answered(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], Shell]:
    """A shell where a collector gives one answer to every command."""

    def with_answer(answer: Answer) -> Shell:
        publish = shell.world.bus.publish

        async def answering(stream: str, *envelopes: Envelope) -> None:
            await publish(stream, *envelopes)
            for one in envelopes:
                await publish(stream, one.causes(answer, source="collector", subject="registry"))

        monkeypatch.setattr(shell.world.bus, "publish", answering)
        return shell

    return with_answer


def test_a_dry_run_says_what_would_be_set_aside(answered: Callable[[Answer], Shell]) -> None:
    """One line, and exit status 0."""
    answer = RegistryCollected(dry_run=True, candidates=3, candidate_bytes=3_000_000)
    result = answered(answer).run("registry", "collect", "--dry-run")
    assert result.exit_code == 0
    assert result.stdout == "3 blobs, 3.0 MB, would be set aside now\n"


def test_damage_is_an_exit_status(answered: Callable[[Answer], Shell]) -> None:
    """What is damaged is named, a line each."""
    answer = RegistryCollected(damaged=(DIGEST,))
    result = answered(answer).run("registry", "collect")
    assert result.exit_code == FAILED_STATUS
    assert f"damaged: {DIGEST}" in result.output


def test_a_deletion_says_what_it_will_free(answered: Callable[[Answer], Shell]) -> None:
    """The bytes go with a later collection."""
    answer = ImageDeleted(reference="docker.io/library/web:1", manifest_digest=DIGEST, freed_bytes=5_000_000)
    result = answered(answer).run("images", "rm", "web:1")
    assert (result.exit_code, result.stdout) == (0, "web:1 is deleted; a collection will free 5.0 MB\n")


def test_a_refusal_says_who_needs_the_image(answered: Callable[[Answer], Shell]) -> None:
    """And ends with the status of a failure."""
    error = Failure(
        code="in_use", message="web:1 was not deleted: it is needed: plan p-1; force deletes it all the same"
    )
    answer = ImageDeleteRefused(reference="docker.io/library/web:1", error=error)
    result = answered(answer).run("images", "rm", "web:1")
    assert result.exit_code == FAILED_STATUS
    assert "plan p-1" in result.output


def test_without_a_collector_the_wait_ends(shell: Shell) -> None:
    """It says which role is missing."""
    result = shell.run("registry", "collect", "--timeout", "0.2")
    assert result.exit_code == FAILED_STATUS
    assert "see whether the role collector runs" in result.output


def test_figures_are_those_of_the_last_collection(shell: Shell) -> None:
    """Nothing is measured for a look."""
    assert "nothing was measured yet" in shell.run("registry", "figures").output
    row = RepositoryFigures(repository="web", tags=2, logical_bytes=7_000, unique_bytes=3_000, shared_bytes=2_000)
    found = StoreFigures(
        at=datetime(2026, 1, 31, tzinfo=UTC),
        tags=2,
        repositories=1,
        blobs=5,
        stored_bytes=5_000,
        referenced_bytes=5_000,
        collectable_bytes=0,
        quarantined_bytes=0,
        logical_bytes=7_000,
        saved_bytes=2_000,
        uploads_bytes=0,
        disk_bytes=9_000,
        free_bytes=10_000,
        by_repository=(row,),
    )
    asyncio.run(shell.world.bus.commit(Outcome(records=(figures_key("test").write(found, expected=ANY),))))
    output = shell.run("registry", "figures").output
    assert "web" in output
    assert "2 tags store 5.0 kB (logical 7.0 kB, sharing saves 2.0 kB)" in output


NOW = datetime(2026, 1, 31, tzinfo=UTC)


def test_a_dry_run_of_a_deletion_says_what_it_means(answered: Callable[[Answer], Shell]) -> None:
    """Siblings, ranges, who needs it, and the bytes; what would be refused ends with that status, unless forced."""
    plan = DeletionPlanned(
        reference="docker.io/library/web:1",
        manifest_digest=DIGEST,
        tags=("1",),
        siblings=("latest",),
        needed_by=("plan p-1",),
        held_by=("range-7",),
        freed_later_bytes=5_000_000,
    )
    shell = answered(plan)
    result = shell.run("images", "rm", "web:1", "--dry-run")
    assert result.exit_code == FAILED_STATUS
    assert "frees 0 B now and 5.0 MB after a collection" in result.output
    assert "keep it: latest" in result.output
    assert "range-7" in result.output
    assert "plan p-1" in result.output
    assert shell.run("images", "rm", "web:1", "--dry-run", "--force").exit_code == 0


def test_quarantine_is_listed_and_restored(answered: Callable[[Answer], Shell]) -> None:
    """What is neither there nor in quarantine is an exit status."""
    shell = answered(RegistryRestored(restored=(DIGEST,)))
    blob = QuarantinedBlob(digest=DIGEST, size_bytes=7_000, since=NOW, until=NOW, repositories=("web",))
    aside = Quarantine(at=NOW, blobs=1, size_bytes=7_000, listed=(blob,))
    asyncio.run(shell.world.bus.commit(Outcome(records=(quarantine_key("test").write(aside, expected=ANY),))))
    assert DIGEST in shell.run("registry", "quarantine", "ls").output
    assert shell.run("registry", "quarantine", "restore", DIGEST).stdout == "1 blobs are back\n"
    assert "written as sha256:" in shell.run("registry", "quarantine", "restore", "nonsense").output


def test_what_cannot_be_restored_is_an_exit_status(answered: Callable[[Answer], Shell]) -> None:
    """It is named."""
    result = answered(RegistryRestored(missing=(DIGEST,))).run("registry", "quarantine", "restore", DIGEST)
    assert result.exit_code == FAILED_STATUS
    assert f"{DIGEST} is neither in quarantine nor there" in result.output


def test_retention_rules_are_added_replaced_and_taken_out(shell: Shell) -> None:
    """One for each pattern."""
    shell.run("registry", "retention", "add", "*/team/*", "--keep-last", "3")
    assert shell.json("registry", "retention", "add", "*/team/*", "--keep-days", "9") == {
        "rules": [{"pattern": "*/team/*", "keep_days": 9.0}]
    }
    assert "*/team/*" in shell.run("registry", "retention", "show").output
    assert shell.json("registry", "retention", "rm", "*/team/*") == {}
    assert "that rule is not allowed" in shell.run("registry", "retention", "add", "a" * 600).output


def test_a_dry_run_of_retention_gives_a_reason_for_each_image(answered: Callable[[Answer], Shell]) -> None:
    """And what a collection would free."""
    verdict = RetentionVerdict(
        reference="docker.io/library/web:1", manifest_digest=DIGEST, keep=False, reason="last used", freed_bytes=1000
    )
    planned = RetentionPlanned(dry_run=True, kept=2, deleted=1, freed_bytes=1000, verdicts=(verdict,))
    output = answered(planned).run("registry", "retention", "run", "--dry-run").output
    assert "delete" in output
    assert "last used" in output
    assert "1 tags would be deleted, 2 stay; a collection frees 1.0 kB" in output


def test_auto_push_is_changed_for_all_and_by_pattern(shell: Shell) -> None:
    """Without a choice it is shown."""
    assert shell.run("registry", "auto-push").output == "default  all other images\n"
    shell.run("registry", "auto-push", "off")
    shell.run("registry", "auto-push", "on", "--pattern", "*/team/*")
    assert shell.run("registry", "auto-push").output == "on       */team/*\noff      all other images\n"
    shell.run("registry", "auto-push", "default", "--pattern", "*/team/*")
    assert shell.run("registry", "auto-push", "default").output == "default  all other images\n"


def test_figures_of_images_layers_and_growth(shell: Shell) -> None:
    """As they were recorded."""
    image = ImageFigures(repository="web", tag="1", stored_bytes=9_000, unique_bytes=2_000, shared_bytes=7_000)
    layer = LayerFigures(digest=DIGEST, size_bytes=7_000, references=3, saved_bytes=14_000)
    sample = StoreSample(at=NOW, stored_bytes=9_000, logical_bytes=23_000, disk_bytes=1, free_bytes=1)
    writes = (
        details_key("test").write(StoreDetails(at=NOW, images=(image,), layers=(layer,)), expected=ANY),
        growth_key("test").write(StoreGrowth(samples=(sample,)), expected=ANY),
    )
    asyncio.run(shell.world.bus.commit(Outcome(records=writes)))
    assert "web:1" in shell.run("registry", "figures", "--images").output
    assert "14.0 kB" in shell.run("registry", "figures", "--layers").output
    assert "23.0 kB" in shell.run("registry", "figures", "--growth").output


def test_a_collection_shows_how_far_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its result, on stderr."""
    publish, streams = shell.world.bus.publish, Streams("test")

    async def answering(stream: str, *envelopes: Envelope) -> None:
        await publish(stream, *envelopes)
        for one in envelopes:
            step = CollectProgress(collection_id=one.id, phase="quarantining", done=200, total=1000)
            await publish(streams.progress, one.causes(step, source="collector", subject="registry"))
            for _ in range(20):  # whoever follows reads it before the end comes
                await asyncio.sleep(0)
            answer = RegistryCollected(quarantined=1000)
            await publish(stream, one.causes(answer, source="collector", subject="registry"))

    monkeypatch.setattr(shell.world.bus, "publish", answering)
    result = shell.run("registry", "collect")
    assert "collection" in result.stderr
    assert "quarantining" in result.stderr
