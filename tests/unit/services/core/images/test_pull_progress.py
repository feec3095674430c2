"""Summing up an engine's progress lines."""

from events.messages import Layer
from services.core.images.pull_progress import PullProgress

ONE, TWO = "1" * 64, "2" * 64
LAYERS = (
    Layer(digest=f"sha256:{ONE}", diff_id=f"sha256:{ONE}", size_bytes=1000),
    Layer(digest=f"sha256:{TWO}", diff_id=f"sha256:{TWO}", size_bytes=50),
)
FIRST, SECOND = ONE[:12], TWO[:12]


def test_a_whole_pull_as_a_classic_engine_tells_it() -> None:
    """Phases follow one another; a small layer without a size counts with the manifest's."""
    progress = PullProgress(LAYERS)
    assert (progress.phase, progress.total_bytes, progress.done_bytes) == ("waiting", 1050, 0)
    assert progress.take("Pulling from library/web", "sha256:abc")
    assert progress.take("Pulling fs layer", FIRST)
    assert progress.take("Pulling fs layer", SECOND)
    assert progress.take("Downloading", FIRST, 400, 1000)
    assert (progress.phase, progress.done_bytes, progress.received_bytes) == ("downloading", 400, 400)
    assert progress.take("Download complete", SECOND)
    assert progress.received_bytes == 450
    assert progress.take("Download complete", FIRST)
    assert (progress.phase, progress.done_bytes) == ("extracting", 0)
    assert progress.take("Extracting", FIRST, 300, 1000)
    assert (progress.done_bytes, progress.layers_done) == (300, 0)
    assert progress.take("Pull complete", FIRST)
    assert progress.take("Pull complete", SECOND)
    assert (progress.done_bytes, progress.layers_done, progress.layers_reused) == (1050, 2, 0)
    assert progress.received_bytes == 1050


def test_what_already_exists_is_reused_and_not_received() -> None:
    """It counts as done from the start."""
    progress = PullProgress(LAYERS)
    progress.take("Already exists", FIRST)
    progress.take("Downloading", SECOND, 20, 50)
    assert (progress.done_bytes, progress.received_bytes, progress.layers_reused) == (1020, 20, 1)
    progress.take("Pull complete", SECOND)
    assert (progress.received_bytes, progress.layers_reused, progress.layers_total) == (50, 1, 2)


def test_an_engine_that_had_the_image_speaks_of_no_layer() -> None:
    """Then nothing was received and every layer was reused."""
    progress = PullProgress(LAYERS)
    progress.take("Status: Image is up to date", None)
    assert (progress.received_bytes, progress.layers_reused) == (0, 2)


def test_the_same_line_again_is_no_movement() -> None:
    """Nor is the announcement of another try."""
    progress = PullProgress(LAYERS)
    progress.take("Downloading", FIRST, 400, 1000)
    assert not progress.take("Downloading", FIRST, 400, 1000)
    assert not progress.retrying
    assert not progress.take("Retrying in 5 seconds", FIRST)
    assert not progress.take("Retrying in 4 seconds", FIRST)
    assert progress.retrying
    assert progress.take("Downloading", FIRST, 0, 1000)
    assert not progress.retrying


def test_a_download_begun_again_is_counted_once() -> None:
    """The engine starts a layer over after a broken connection; what counts is what it has in the end."""
    progress = PullProgress(LAYERS)
    progress.take("Downloading", FIRST, 900, 1000)
    progress.take("Downloading", FIRST, 100, 1000)
    assert progress.received_bytes == 100


def test_a_pull_behind_others_is_queued() -> None:
    """As long as no layer of it is in work."""
    progress = PullProgress(LAYERS)
    progress.take("Pulling fs layer", FIRST)
    progress.take("Pulling fs layer", SECOND)
    assert not progress.queued
    progress.take("Waiting", FIRST)
    assert not progress.queued
    progress.take("Waiting", SECOND)
    assert (progress.queued, progress.phase) == (True, "waiting")
    progress.take("Downloading", FIRST, 1, 1000)
    assert not progress.queued


def test_without_a_manifest_the_engines_words_are_all_there_is() -> None:
    """Totals grow as layers are told of; lines about other things are no layers."""
    progress = PullProgress()
    progress.take("Pulling from library/web", "latest")
    progress.take("Downloading", FIRST, 10, 500)
    progress.take("Already exists", SECOND)
    assert (progress.layers_total, progress.total_bytes, progress.layers_reused) == (2, 500, 1)


def test_a_layer_two_pulls_share_is_counted_by_the_first() -> None:
    """The engine tells both of one download; its bytes are received once, and the other pull reuses the layer."""
    coming: set[str] = set()
    first, second = PullProgress(LAYERS, coming), PullProgress(LAYERS, coming)
    for pull in (first, second):
        for layer in LAYERS:
            pull.take("Download complete", layer.digest[7:19])
    assert first.received_bytes == sum(layer.size_bytes for layer in LAYERS)
    assert first.layers_reused == 0
    assert second.received_bytes == 0
    assert second.layers_reused == len(LAYERS)


def test_a_layer_counts_again_once_the_pull_that_counted_it_is_over() -> None:
    """A pull that failed leaves its layers to the next one."""
    coming: set[str] = set()
    failed = PullProgress(LAYERS, coming)
    failed.take("Downloading", LAYERS[0].digest[7:19], 1, LAYERS[0].size_bytes)
    failed.over()
    later = PullProgress(LAYERS, coming)
    later.take("Download complete", LAYERS[0].digest[7:19])
    assert later.received_bytes == LAYERS[0].size_bytes
