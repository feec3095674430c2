"""What `images import` names: a file, standard input, or a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ingest.archive_flow import Archive
    from services.ports import Chunks

_ARCHIVE_ENDINGS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2"),
    ".zip",
)


def path_of(source: str) -> Path | None:
    """The file that `source` names; None where it is a reference."""
    path = Path(source)
    if source == "-" or path.is_file() or source.startswith(("./", "../", "/")) or source.endswith(_ARCHIVE_ENDINGS):
        return path
    return None


def item_of(source: str, name: str | None) -> Archive | str:
    """What is imported: an archive, under `name` if that is given, or a reference."""
    from services.content.decompression import unpacked
    from services.ingest.archive_flow import Archive

    path = path_of(source)
    if path is None:
        return source
    origin = "standard input" if source == "-" else path.name
    return Archive(chunks=unpacked(chunks_of(source), source), origin=origin, reference=name)


def chunks_of(source: str) -> Chunks:
    """The bytes of that file, or of standard input."""
    from services.adapters.files import file_chunks, stdin_chunks

    return stdin_chunks() if source == "-" else file_chunks(Path(source))
