"""`ranges unwanted` and `images unwanted`."""

import asyncio
from datetime import UTC, datetime

import msgspec

from events.bus import IndexWrite, Outcome
from events.messages import PresentImage
from events.records import ANY
from services.core.images.read_model import RangeInventory, ReadModelKeys, RegistryEntry
from services.core.ranges.ranges import DesiredImage, DesiredImages, RangeKeys
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

WEB, TOY = "docker.io/library/web:1", "docker.io/library/toy:1"
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")


def _range(shell: Shell, range_id: str, *images: PresentImage, alive: bool = True) -> None:
    """It has these; it should have web:1."""
    keys, held = RangeKeys(STREAMS.prefix), ReadModelKeys(STREAMS.prefix)
    wanted = DesiredImage(reference=WEB, image_id=ONE, diff_ids=(), deployment_id="d")
    now = datetime.now(UTC)
    records = (
        held.holdings(range_id).write(
            msgspec.structs.replace(RangeInventory.announced(range_id, images, now), heard_at=now), expected=ANY
        ),
        keys.wanted(range_id).write(DesiredImages(range_id=range_id, images={WEB: wanted}), expected=ANY),
    )

    async def store() -> None:
        index = (IndexWrite(keys.known_index, range_id, 1.0),)
        await shell.world.bus.commit(Outcome(records=records, index=index))
        if alive:
            await shell.world.bus.beat(STREAMS.alive(range_id), b"{}", 60)

    asyncio.run(store())


def _image(*references: str, image_id: str, size_bytes: int = 0) -> PresentImage:
    return PresentImage(references=references, diff_ids=(), image_id=image_id, size_bytes=size_bytes)


def test_a_line_per_image_that_nobody_wants_and_what_to_do(shell: Shell) -> None:
    """Brought by hand, another name, left without a name; the range that has nothing of it is not listed."""
    _range(shell, "r1", _image(WEB, "docker.io/library/alias:1", image_id=ONE, size_bytes=5_000_000))
    _range(shell, "r2", _image(WEB, image_id=ONE))
    _range(
        shell, "r3", _image(TOY, image_id=TWO, size_bytes=7_000_000), _image(image_id=THREE, size_bytes=1), alive=False
    )
    result = shell.run("ranges", "unwanted")
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "RANGE IMAGE IMAGE ID SIZE NOTE",
        f"r1 docker.io/library/alias:1 {'1' * 12} 5.0 MB another name of a desired image: takes no space",
        f"r3 {TOY} {'2' * 12} 7.0 MB",
        f"r3 <none> {'3' * 12} 1 B no name: left by one that was rebuilt, or untagged",
    ]
    assert "the agent of r3 does not answer: as it reported" in result.stderr
    assert "docker rmi IMAGE" in result.stderr
    assert f"one without a name is removed by its id: `docker rmi {'3' * 12}`" in result.stderr
    assert shell.run("ranges", "unreferenced").stdout == result.stdout
    assert "unwanted " not in shell.run("ranges", "--help").stdout
    said = shell.json("ranges", "unwanted", "r3")
    assert [(one["range_id"], one["agent"]) for one in said["items"]] == [("r3", "away")]
    assert [image["references"] for image in said["items"][0]["images"]] == [[TOY], []]


def test_nothing_unwanted_is_said_and_an_unknown_range_is_bad_input(shell: Shell) -> None:
    """An empty table would be no answer."""
    _range(shell, "r1", _image(WEB, image_id=ONE))
    result = shell.run("ranges", "unwanted", "r1")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "every image there is desired" in result.stderr
    assert shell.json("ranges", "unwanted")["items"] == []
    assert shell.run("ranges", "unwanted", "nowhere").exit_code == 2


def test_verify_notes_what_is_there_beyond_without_failing(shell: Shell) -> None:
    """Not when it was asked about one image."""
    _range(shell, "r1", _image(WEB, image_id=ONE), _image(TOY, image_id=TWO))
    result = shell.run("verify", "r1")
    assert result.exit_code == 0, result.output
    assert "unreferenced images (1): cyroid-images ranges unreferenced r1" in result.stderr
    said = shell.json("verify", "r1")
    assert (said["well"], [image["references"] for image in said["unwanted"]]) == (True, [[TOY]])
    assert shell.json("verify", "r1", "--image", "web:1")["unwanted"] == []


def test_the_registrys_images_for_nobody_are_listed(shell: Shell) -> None:
    """With when they were pushed; nothing to tell is said."""
    _range(shell, "r1", _image(WEB, image_id=ONE))
    assert "every image there is in a range" in shell.run("images", "unwanted").stderr
    keys = ReadModelKeys(STREAMS.prefix)
    entry = RegistryEntry(
        reference=TOY,
        repository="library/toy",
        tag="1",
        manifest_digest=THREE,
        image_id=TWO,
        layers=1,
        size_bytes=9_000_000,
        pushed_at=datetime.now(UTC),
    )
    write = keys.image(TOY).write(entry, expected=ANY)
    asyncio.run(shell.world.bus.commit(Outcome(records=(write,), index=(IndexWrite(keys.images, TOY, 1.0),))))
    result = shell.run("images", "unwanted")
    assert f"{TOY}  {'2' * 12}  9.0 MB" in result.stdout
    assert [one["reference"] for one in shell.json("images", "unwanted")["items"]] == [TOY]


def test_a_claim_is_for_this_host_unless_another_is_named(shell: Shell) -> None:
    """An id that another host has is refused, with how to let it go."""
    claimed = shell.run("ranges", "claim", "r1", "--json")
    assert claimed.exit_code == 0, claimed.output
    refused = shell.run("ranges", "claim", "r1", "--host", "elsewhere")
    assert (refused.exit_code, "ranges release r1" in refused.stderr) == (2, True)
    assert shell.run("ranges", "release", "r1").exit_code == 0
    assert shell.run("ranges", "claim", "r1", "--host", "elsewhere").exit_code == 0
