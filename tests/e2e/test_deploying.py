"""Deployments without faults: what is sent, what is not, and that the range has the content."""

from __future__ import annotations

import pytest

from events.messages import DeploymentRequested, ImagePushed
from tests.e2e.scene import MEGABYTE, SLACK_BYTES, Scene

pytestmark = pytest.mark.real


def test_a_first_deployment_is_pulled_and_bears_only_the_original_name(scene: Scene) -> None:
    """Every missing layer comes once from the registry, by digest, and the registry's own name is gone afterwards."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "first", bulk_bytes=3 * MEGABYTE)
    (image,) = scene.deploy("range-1", name)
    assert image.how == "pulled"
    assert image.sent_bytes >= 3 * MEGABYTE
    assert image.sent_bytes <= scene.fetched_bytes() <= image.sent_bytes + SLACK_BYTES
    assert scene.is_whole("range-1", name)
    assert scene.read("range-1", name) == "first"
    assert not scene.stray_names("range-1")


def test_the_same_deployment_again_sends_nothing(scene: Scene) -> None:
    """The agent finds the content present; not one blob is asked for."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "same", bulk_bytes=MEGABYTE)
    scene.deploy("range-1", name)
    scene.from_now()
    (image,) = scene.deploy("range-1", name)
    assert (image.how, image.sent_bytes) == ("present", 0)
    assert image.layers_reused == image.layers_total > 0
    assert scene.fetched() == []


def test_a_tag_that_was_rebuilt_arrives_new_with_only_its_new_layer(scene: Scene) -> None:
    """A tag says nothing about content: the range gets the new one, and what it has already is not sent again."""
    name = f"e2e/{scene.name}:latest"
    scene.build(name, "common", bulk_bytes=3 * MEGABYTE)
    first = scene.build(name, "old", base=name)
    scene.deploy("range-1", name)
    assert scene.read("range-1", name) == "old"
    scene.from_now()
    second = scene.build(name, "new", base=name)
    assert first != second
    (image,) = scene.deploy("range-1", name)
    assert image.how == "pulled"
    assert 0 < image.sent_bytes < SLACK_BYTES
    assert image.layers_reused == image.layers_total - 1
    assert scene.fetched_bytes() < SLACK_BYTES
    assert scene.read("range-1", name) == "new"


def test_a_layer_that_another_image_brought_is_not_sent_again(scene: Scene) -> None:
    """Two images on one base: the second costs its own layer, into the registry and to the range."""
    base, one, two = (f"e2e/{scene.name}-{part}:1" for part in ("base", "one", "two"))
    scene.build(base, "base", bulk_bytes=3 * MEGABYTE, push="never")
    scene.build(one, "one", base=base)
    scene.deploy("range-1", one)
    scene.from_now()
    image_id = scene.build(two, "two", base=base)
    pushed = scene.pushed(two, image_id)
    assert 0 < pushed.sent_bytes < SLACK_BYTES
    assert pushed.reused_bytes > 3 * MEGABYTE
    (image,) = scene.deploy("range-1", two)
    assert image.how == "pulled"
    assert scene.fetched_bytes() < SLACK_BYTES
    assert scene.read("range-1", two) == "two"


def test_the_same_content_under_another_name_is_only_named(scene: Scene) -> None:
    """A promoted image that differs by its name alone costs a tag."""
    name, other = f"e2e/{scene.name}:1", f"e2e/{scene.name}:stable"
    scene.build(name, "content", bulk_bytes=MEGABYTE)
    scene.deploy("range-1", name)
    promoted = scene.system.cli("images", "promote", "--image", name, other)
    assert promoted.status == 0, promoted.talk
    scene.from_now()
    (image,) = scene.deploy("range-1", other)
    assert (image.how, image.sent_bytes) == ("retagged", 0)
    assert scene.fetched() == []
    assert scene.read("range-1", other) == "content"


def test_a_name_with_a_registry_host_arrives_under_that_very_name(scene: Scene) -> None:
    """`host:port/team/app:tag` is a name like any other: nothing is fetched from that host."""
    name = f"registry.example:5000/team/{scene.name}:1.0"
    scene.build(name, "elsewhere", bulk_bytes=MEGABYTE)
    (image,) = scene.deploy("range-1", name)
    assert image.how == "pulled"
    assert image.reference == name
    assert scene.read("range-1", name) == "elsewhere"
    assert not scene.stray_names("range-1")


def test_two_ranges_at_once_cost_one_push(scene: Scene) -> None:
    """An image nobody pushed is pushed on demand, once, however many ranges want it at the same time."""
    name = f"e2e/{scene.name}:1"
    image_id = scene.build(name, "both", bulk_bytes=3 * MEGABYTE, push="never")
    begun = [scene.begin(range_id, name) for range_id in ("range-1", "range-2")]
    ended = [scene.ended(deployment_id) for deployment_id in begun]
    assert [end.images[0].how for end in ended] == ["pulled", "pulled"]
    assert {end.range_id for end in ended} == {"range-1", "range-2"}
    uploads = scene.book.find(ImagePushed, scene.mark, lambda m: m.image_id == image_id and m.sent_bytes > MEGABYTE)
    assert len(uploads) == 1
    for range_id in scene.system.ranges:
        assert scene.read(range_id, name) == "both"


def test_several_images_of_one_deployment_share_what_they_have_in_common(scene: Scene) -> None:
    """A common layer crosses to the range once, though both images are pulled at the same time."""
    base, one, two = (f"e2e/{scene.name}-{part}:1" for part in ("base", "one", "two"))
    scene.build(base, "base", bulk_bytes=3 * MEGABYTE, push="never")
    scene.build(one, "one", base=base)
    scene.build(two, "two", base=base)
    scene.from_now()
    images = scene.deploy("range-2", one, two)
    assert {image.how for image in images} == {"pulled"}
    assert scene.fetched_bytes() < 2 * 3 * MEGABYTE
    assert sum(image.sent_bytes for image in images) <= scene.fetched_bytes()
    assert (scene.read("range-2", one), scene.read("range-2", two)) == ("one", "two")


def test_the_log_book_tells_a_deployment_in_order(scene: Scene) -> None:
    """The streams alone say what was asked, by whom, and how it ended, tied together by one correlation id."""
    name = f"e2e/{scene.name}:1"
    scene.build(name, "logged")
    ended = scene.ended(scene.begin("range-1", name))
    said = [e for e in scene.book.since(scene.mark) if getattr(e.message, "deployment_id", "") == ended.deployment_id]
    first, last = said[0], said[-1]
    assert isinstance(first.message, DeploymentRequested)
    assert (first.subject, first.source.partition("@")[0]) == ("range-1", "cli")
    assert last.message == ended
    assert (last.correlation_id, last.source.partition("@")[0]) == (first.correlation_id, "deployer")
