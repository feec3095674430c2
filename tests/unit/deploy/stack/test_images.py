"""Which images are built, from what, and what goes into the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.machine.commands import MachineError
from deploy.stack import images


class Engine:
    """`docker` as far as these builds ask it: what is there, what can be pulled."""

    def __init__(self, there: set[str], pulls: set[str]) -> None:
        self.there, self.pulls = there, pulls
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, *words: str, seconds: float = 0) -> str:
        self.asked.append(words)
        if words[:2] == ("image", "ls"):
            return "id\n" if words[-1] in self.there else ""
        if words[0] == "pull":
            if words[-1] not in self.pulls:
                raise MachineError("no route to host")
            self.there.add(words[-1])
        if words[:2] == ("buildx", "build"):
            self.there.add(words[words.index("--tag") + 1])
        return "1"


HUB = {"debian:bookworm-slim", "debian:forky-slim", *images.PULLED}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "say", lambda text: None)


@pytest.mark.parametrize(
    ("there", "pulls", "base"),
    [
        (set(), HUB, "pull"),
        (set(), set(), "debootstrap"),
        ({"debian:bookworm-slim"}, set(), "pull"),
        ({"cyroid/base:bookworm"}, HUB, "debootstrap"),
    ],
)
def test_the_base_is_chosen_by_what_can_be_had(
    there: set[str], pulls: set[str], base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulled where that works, else made; what was made before is used again without asking anybody."""
    monkeypatch.setattr(images, "docker", Engine(there, pulls))
    assert images.choose_base() == base


def test_what_is_pulled_belongs_to_the_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With bases from Docker Hub, registry:2 and redis:7 are fetched and saved with our own images."""
    engine = Engine(set(), HUB)
    monkeypatch.setattr(images, "docker", engine)
    built = images.build_all(base="pull", engines=["28.5"])
    assert built == ["cyroid/images:latest", "registry:2", "redis:7", "cyroid/range:28.5"]
    (tmp_path / "bundle.tar.part").touch()
    images.save(built, tmp_path / "bundle.tar")
    saved = next(words for words in engine.asked if words[0] == "save")
    assert list(saved[-4:]) == built


def test_without_pulling_stand_ins_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is pulled."""
    engine = Engine({"cyroid/base:bookworm", "cyroid/base:forky"}, set())
    monkeypatch.setattr(images, "docker", engine)
    built = images.build_all(base="debootstrap", engines=["28.5"])
    assert built == ["cyroid/images:latest", "cyroid/registry:2", "cyroid/redis:7", "cyroid/range:28.5"]
    assert not any(words[0] == "pull" for words in engine.asked)


def test_ranges_alone_need_no_more_than_their_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the range that is missing is built."""
    monkeypatch.setattr(images, "docker", Engine(set(HUB), set()))
    assert images.build_all(base="pull", engines=["28.5"], services=False) == ["cyroid/range:28.5"]


def test_the_layer_mounter_stands_on_a_release_with_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 13 has erofs-utils 1.8, the release of the other services has not."""
    engine = Engine({"cyroid/base:trixie"}, set())
    monkeypatch.setattr(images, "docker", engine)
    built = images.build_all(base="debootstrap", engines=[], services=False, mounter=True)
    assert built == [images.MOUNTER_IMAGE]
    (build,) = [words for words in engine.asked if words[:2] == ("buildx", "build")]
    assert {"BASE=cyroid/base:trixie", "ALSO=erofs-utils"} <= set(build)


def test_what_fetches_packages_is_tried_twice_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is said, the second one is raised."""
    said: list[str] = []
    monkeypatch.setattr(images, "say", said.append)
    outcomes = [MachineError("one"), None, MachineError("two"), MachineError("three"), None]

    def step() -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    images.twice("a", step)
    assert said == ["a: once more, after this: one"]
    with pytest.raises(MachineError, match="three"):
        images.twice("a", step)
    assert outcomes == [None]
