"""`images build|import|promote|ls`."""

import asyncio
from pathlib import Path

import pytest

from events.messages import ImageBuilt, ImageImported, ImagePromoted
from services.adapters.memory_archives import tar_of
from tests.unit.services.cli.conftest import Shell


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder to build from."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /a\n")
    (tmp_path / "a").write_text("hello")
    return tmp_path


def _said(shell: Shell) -> list[object]:
    return list(asyncio.run(shell.world.said()))


def _saved(shell: Shell, *references: str) -> bytes:
    async def save() -> bytes:
        async with shell.world.engine.save(references) as archive:
            return b"".join([chunk async for chunk in archive])

    return asyncio.run(save())


def test_build_prints_the_image_and_talks_on_stderr(shell: Shell, context: Path) -> None:
    """stdout has the image id and the name, the engine's log is on stderr."""
    result = shell.run("images", "build", str(context), "-t", "web:1", "--push", "never", "--label", "a=b")
    assert result.exit_code == 0, result.output
    (message,) = _said(shell)
    assert isinstance(message, ImageBuilt)
    assert result.stdout == f"{message.image_id} docker.io/library/web:1\n"
    assert "Step" in result.stderr
    assert message.push == "never"
    assert message.origin == str(context)


def test_build_as_json_and_quiet(shell: Shell, context: Path) -> None:
    """--json gives the event; -q leaves the log out."""
    (item,) = shell.json("images", "build", str(context), "-t", "web:1", "-q")["items"]
    assert item["type"] == "image.built.v1"
    assert item["reference"] == "docker.io/library/web:1"
    assert shell.run("images", "build", str(context), "-t", "web:1", "-q").stderr == ""


def test_build_from_a_tar_on_standard_input(shell: Shell) -> None:
    """`-` is a tar of a context."""
    tar = tar_of({"Dockerfile": b"FROM scratch\nCOPY a /a\n", "a": b"hello"})
    result = shell.run("images", "build", "-", "-t", "web:1", given=tar)
    assert result.exit_code == 0, result.output
    assert len(_said(shell)) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("/nowhere", "-t", "a:1"), 2, "there is no file /nowhere"),
        (("CONTEXT", "-t", "UPPER:1"), 2, "must be lower case"),
        (("CONTEXT", "-t", "a:1", "-f", "none"), 2, "there is no Dockerfile none"),
        (("CONTEXT", "-t", "a:1", "--label", "=x"), 2, "is not NAME=VALUE"),
        (("CONTEXT",), 2, "Missing option '-t'"),
    ],
)
def test_a_build_that_cannot_begin(
    shell: Shell, context: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    """One clear line, the exit status of bad input, no event."""
    result = shell.run("images", "build", *(str(context) if one == "CONTEXT" else one for one in arguments))
    assert result.exit_code == status
    assert message in result.stderr
    assert _said(shell) == []


def test_an_engine_that_is_away_is_exit_status_4(shell: Shell, context: Path) -> None:
    """Something that is away is told apart from bad input."""
    shell.world.engine.away = True
    assert shell.run("images", "build", str(context), "-t", "a:1").exit_code == 4


def test_import_takes_files_and_references_and_reports_each(shell: Shell, tmp_path: Path) -> None:
    """The good ones are printed, the bad ones told, and the exit status is that of the worst."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    good, bad = tmp_path / "good.tar", tmp_path / "bad.tar"
    good.write_bytes(_saved(shell, "web:1"))
    bad.write_bytes(b"junk" * 1000)
    result = shell.run("images", "import", str(good), str(bad), f"{shell.world.registry.address}/none:1")
    (message,) = _said(shell)
    assert isinstance(message, ImageImported)
    assert result.stdout == f"{message.image_id} docker.io/library/web:1\n"
    assert result.exit_code == 2
    assert "bad.tar is no tar archive" in result.stderr
    assert "none:1" in result.stderr


def test_import_from_standard_input_under_a_further_name(shell: Shell) -> None:
    """`-` is an archive, --as names its image."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    result = shell.run("images", "import", "-", "--as", "shop:2", given=_saved(shell, "web:1"))
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("docker.io/library/shop:2\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.tar", "b.tar", "--as", "x:1"), "--as names one image"),
        (("debian:12", "--as", "x:1"), "--as is for archives"),
        (("missing.tar",), "there is no file missing.tar"),
    ],
)
def test_an_import_that_cannot_begin(shell: Shell, arguments: tuple[str, ...], message: str) -> None:
    """A name that looks like a file is never taken for a reference."""
    result = shell.run("images", "import", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_promote_commits_a_container_or_names_an_image(shell: Shell) -> None:
    """Both become images with an event; --image says which is meant."""
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    shell.world.engine.add_container("shop", "web:1", {"x": b"y"})
    assert shell.run("images", "promote", "shop", "web:2").exit_code == 0
    assert shell.run("images", "promote", "--image", "web:1", "web:stable").exit_code == 0
    origins = [message.origin for message in _said(shell) if isinstance(message, ImagePromoted)]
    assert origins == ["shop", "docker.io/library/web:1"]
    result = shell.run("images", "promote", "web:1", "web:3")
    assert result.exit_code == 2
    assert "if web:1 is an image, say --image" in result.stderr


def test_ls_says_whether_the_registry_has_that_content(shell: Shell) -> None:
    """`no` before a push; the same content is told apart from other content under the same name."""
    name = f"{shell.world.registry.address}/library/web:1"
    shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    (row,) = shell.json("images", "ls")["items"]
    assert (row["reference"], row["registry"]) == ("docker.io/library/web:1", "no")

    async def push() -> None:
        await shell.world.engine.tag("web:1", name)
        async with shell.world.engine.push(name) as lines:
            assert [line async for line in lines]
        await shell.world.engine.untag(name)

    asyncio.run(push())
    assert shell.json("images", "ls")["items"][0]["registry"] == "same"
    shell.world.engine.add_image("web:1", [tar_of({"f": b"2"})])
    states = {row["reference"]: row["registry"] for row in shell.json("images", "ls")["items"]}
    assert states["docker.io/library/web:1"] == "other"
    assert "docker.io/library/web:1" in shell.run("images", "ls").stdout
