"""Recent looks at hosts: one answers everybody who asked before it began, for a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from services.core.deployments.deployment import ImageState
from services.core.deployments.facts import HostImage
from services.deployer.recent_answers import KEPT
from services.deployer.recent_looks import Found, RecentLooks

START = datetime(2030, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=1)
IMAGE = ImageState(reference="docker.io/library/web:1", state="resolving", since=START)


def host_image(image_id: str) -> HostImage:
    return HostImage(image_id=image_id, diff_ids=(), size_bytes=1, platform="linux/amd64", host="h1")


class Hosts:
    """Hosts that have whatever they are given; each question is counted. `now` is everybody's clock."""

    def __init__(self) -> None:
        self.answer: Found = host_image("sha256:1"), None
        self.questions: list[tuple[str, str | None]] = []
        self.now = START + STEP

    async def find(self, reference: str, image_id: str | None = None, diff_ids: tuple[str, ...] = ()) -> Found:
        self.questions.append((reference, image_id))
        return self.answer

    async def tar_url(self, host: str) -> str | None:
        return None


async def test_one_look_answers_all_who_asked_before_it() -> None:
    """A deployment to many ranges asks once."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    first = await looks.find(IMAGE)
    hosts.now += KEPT
    assert await looks.find(IMAGE) == first
    assert len(hosts.questions) == 1


async def test_an_image_that_was_built_before_its_deployment_is_found() -> None:
    """What was found before a deployment was asked for says nothing about it, however little before."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    await looks.find(IMAGE)
    hosts.answer = host_image("sha256:2"), None
    later = replace(IMAGE, since=hosts.now)
    assert await looks.find(later) == hosts.answer
    hosts.now += STEP
    assert await looks.find(later) == hosts.answer
    assert len(hosts.questions) == 3
    assert await looks.find(later) == hosts.answer
    assert len(hosts.questions) == 3


async def test_a_look_is_forgotten_soon() -> None:
    """Also when another replica's clock, or a corrected one, puts it into the future."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    await looks.find(IMAGE)
    hosts.now += KEPT + STEP
    await looks.find(IMAGE)
    hosts.now -= STEP
    await looks.find(IMAGE)
    assert len(hosts.questions) == 3


async def test_what_was_not_found_is_asked_again() -> None:
    """A host may come back, or get the image, at any moment."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    for answer in ((None, None), (None, "no host is there")):
        hosts.answer = answer
        assert await looks.find(IMAGE) == answer
    hosts.answer = host_image("sha256:1"), None
    assert await looks.find(IMAGE) == hosts.answer
    assert len(hosts.questions) == 3


async def test_chosen_content_is_another_question_than_its_name() -> None:
    """The name may have moved since it was chosen."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    await looks.find(IMAGE)
    await looks.find(replace(IMAGE, image_id="sha256:1"))
    assert hosts.questions == [(IMAGE.reference, None), (IMAGE.reference, "sha256:1")]


async def test_old_looks_take_no_room() -> None:
    """Those that can answer nobody go with the next one."""
    hosts = Hosts()
    looks = RecentLooks(hosts, lambda: hosts.now)
    for number in range(10):
        await looks.find(replace(IMAGE, reference=f"docker.io/library/web:{number}"))
    hosts.now += 2 * KEPT
    await looks.find(IMAGE)
    assert len(looks) == 1
