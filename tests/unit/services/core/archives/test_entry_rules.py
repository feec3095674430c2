"""What an image archive may hold."""

import pytest

from services.core.archives.entry_rules import ArchiveEntries, ArchiveLimits, BeyondLimit, clean_path
from services.core.archives.tar_headers import Header


@pytest.mark.parametrize(
    ("name", "path"),
    [("a", "a"), ("./a//b/", "a/b"), ("/x.tar", "x.tar"), ("a/../b", "b"), (".", ""), ("", ""), ("a/./b/..", "a")],
)
def test_names_as_paths(name: str, path: str) -> None:
    """Below the archive's folder, whatever they begin with."""
    assert clean_path(name) == path


def test_links_are_followed_inside_the_archive() -> None:
    """Relative to their folder, hard links to the archive's; in circles they lead to nothing."""
    entries = ArchiveEntries(ArchiveLimits())
    for header in (
        Header("b/layer.tar", 5),
        Header("a/layer.tar", 0, "link", "../b/layer.tar"),
        Header("hard", 0, "hard link", "b/layer.tar"),
        Header("round", 0, "link", "about"),
        Header("about", 0, "link", "round"),
        Header("folder", 0, "folder"),
    ):
        entries.add(header)
    found = [entries.file(path) for path in ("b/layer.tar", "a/layer.tar", "hard", "round", "folder", "none")]
    assert found == ["b/layer.tar", "b/layer.tar", "b/layer.tar", None, None, None]


def test_the_last_entry_of_a_name_counts() -> None:
    """As where it is unpacked."""
    entries = ArchiveEntries(ArchiveLimits())
    for header in (Header("a", 0, "link", "b"), Header("a", 5), Header("b", 5), Header("b", 0, "folder")):
        entries.add(header)
    assert [entries.file("a"), entries.file("b")] == ["a", None]


def test_memory_is_bounded() -> None:
    """By the number of entries, and by their names."""
    entries = ArchiveEntries(ArchiveLimits(entries=3))
    for number in range(3):
        entries.add(Header(f"{number}", 0))
    with pytest.raises(BeyondLimit, match="more than 3 entries"):
        entries.add(Header("x", 0))
    with pytest.raises(BeyondLimit, match="more than 10 bytes"):
        ArchiveEntries(ArchiveLimits(names_bytes=10)).add(Header("x" * 11, 0))
