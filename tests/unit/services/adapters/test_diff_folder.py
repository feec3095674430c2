"""Opening files below a layer's folder and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.adapters.diff_folder import DiffFolder


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A folder with a secret beside it."""
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_text("outside")
    folder = tmp_path / "diff"
    (folder / "real/deep").mkdir(parents=True)
    (folder / "real/deep/file").write_text("inside")
    return folder


@pytest.fixture
def opened(layer: Path) -> Iterator[DiffFolder]:
    """That folder, opened."""
    with DiffFolder(layer) as folder:
        yield folder


def content(folder: DiffFolder, name: bytes) -> bytes:
    """What a name opens."""
    file = folder.open(name)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


@pytest.mark.parametrize("name", [b"real/deep/file", b"./real/deep/file", b"/real//deep/file", b"x/../real/deep/file"])
def test_names_as_tars_write_them_open(opened: DiffFolder, name: bytes) -> None:
    """Leading dots and slashes, doubled slashes, and dots on the way are the same file."""
    assert content(opened, name) == b"inside"


def test_a_file_behind_a_link_opens_as_in_a_container(layer: Path, opened: DiffFolder) -> None:
    """Links on the way are followed below the folder, absolute ones from the folder on."""
    (layer / "relative").symlink_to("real")
    (layer / "absolute").symlink_to("/real/deep")
    (layer / "up").symlink_to("../../../../real")
    assert content(opened, b"relative/deep/file") == b"inside"
    assert content(opened, b"absolute/file") == b"inside"
    assert content(opened, b"up/deep/file") == b"inside"


@pytest.mark.parametrize("target", ["..", "../elsewhere", "/elsewhere", "../../../..", "/../elsewhere"])
def test_a_link_out_of_the_layer_leads_nowhere(layer: Path, opened: DiffFolder, target: str) -> None:
    """What a hostile image links to outside of it is not there."""
    (layer / "out").symlink_to(target)
    with pytest.raises(OSError, match=r"out/secret|No such|secret"):
        content(opened, b"out/secret")


@pytest.mark.parametrize("name", [b"../secret", b"../../secret", b"real/../../secret", b"", b"/", b".", b".."])
def test_a_name_out_of_the_layer_leads_nowhere(opened: DiffFolder, name: bytes) -> None:
    """`..` ends at the folder."""
    with pytest.raises(OSError, match=r"."):
        content(opened, name)


def test_a_link_in_a_files_place_is_not_followed(layer: Path, opened: DiffFolder) -> None:
    """The file itself must be a file."""
    (layer / "link").symlink_to("../secret")
    (layer / "inner").symlink_to("real/deep/file")
    for name in (b"link", b"inner"):
        with pytest.raises(OSError, match="symbolic links"):
            content(opened, name)


def test_links_in_a_circle_end(layer: Path, opened: DiffFolder) -> None:
    """A loop is an error, not a hang."""
    (layer / "a").symlink_to("b")
    (layer / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        content(opened, b"a/file")


def test_a_pipe_does_not_block(layer: Path, opened: DiffFolder) -> None:
    """A FIFO in a file's place gives nothing, at once."""
    os.mkfifo(layer / "pipe")
    assert content(opened, b"pipe") == b""


def test_very_deep_folders_open_and_leave_no_descriptor(layer: Path) -> None:
    """Hundreds of folders deep, names of 255 bytes, and everything is closed at the end."""
    before = len(os.listdir("/proc/self/fd"))
    name = b"/".join([b"d" * 255] * 200)
    here = os.open(layer, os.O_RDONLY)
    for part in name.split(b"/"):
        os.mkdir(part, dir_fd=here)
        below = os.open(part, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, b"deep")
    os.close(file)
    os.close(here)
    with DiffFolder(layer) as folder:
        for _ in range(3):
            assert content(folder, name + b"/file") == b"deep"
            assert content(folder, b"real/deep/file") == b"inside"
            with pytest.raises(OSError, match="No such file"):
                content(folder, name + b"/more/file")
    assert len(os.listdir("/proc/self/fd")) == before
