"""Layers that are hard to transfer correctly. Everything is below `t/`; engines add files beside it."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 512
NOTE = "value with = and \n"


@dataclass
class LayerTar:
    """A tar under construction; PAX by default, for what needs it."""

    tar_format: int = tarfile.PAX_FORMAT
    raw: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.tar = tarfile.TarFile(fileobj=self.raw, mode="w", format=self.tar_format, errors="surrogateescape")
        self.add("t", kind=tarfile.DIRTYPE, mode=0o755)

    def add(
        self,
        name: str | bytes,
        content: bytes = b"",
        *,
        kind: bytes = tarfile.REGTYPE,
        link: str | bytes = "",
        mode: int = 0o644,
        mtime: float = 1_700_000_000,
        pax: Mapping[str, str] | None = None,
        device: tuple[int, int] = (0, 0),
        owner: tuple[int, int] = (0, 0),
    ) -> LayerTar:
        """One entry, whatever is wanted of it."""
        info = tarfile.TarInfo(name if isinstance(name, str) else name.decode(errors="surrogateescape"))
        info.type, info.mode, info.mtime = kind, mode, mtime
        info.linkname = link if isinstance(link, str) else link.decode(errors="surrogateescape")
        info.size = len(content)
        info.uid, info.gid = owner
        info.devmajor, info.devminor = device
        info.pax_headers = dict(pax or {})
        self.tar.addfile(info, io.BytesIO(content))
        return self

    def bytes(self) -> bytes:
        """The finished tar."""
        self.tar.close()
        return self.raw.getvalue()


def links() -> list[bytes]:
    """Hard links in one layer, links in circles, to nowhere, out of the layer and with a long target."""
    layer = LayerTar().add("t/file", b"hard link content")
    for number in range(3):
        layer.add(f"t/hard-{number}", kind=tarfile.LNKTYPE, link="t/file")
    layer.add("t/circle-a", kind=tarfile.SYMTYPE, link="circle-b").add(
        "t/circle-b", kind=tarfile.SYMTYPE, link="circle-a"
    )
    layer.add("t/self", kind=tarfile.SYMTYPE, link=".").add("t/nowhere", kind=tarfile.SYMTYPE, link="/no/such/file")
    layer.add("t/out", kind=tarfile.SYMTYPE, link="../../../../etc/passwd")
    layer.add("t/long", kind=tarfile.SYMTYPE, link="x" * 250 + "/" + "y" * 250)
    return [layer.bytes()]


def behind_a_link() -> list[bytes]:
    """A file that the tar puts into a link to a folder."""
    layer = LayerTar().add("t/real", kind=tarfile.DIRTYPE, mode=0o755)
    layer.add("t/alias", kind=tarfile.SYMTYPE, link="real").add("t/alias/file", b"behind the link")
    return [layer.bytes()]


def whiteouts() -> list[bytes]:
    """Files and folders taken away by a later layer, a folder made opaque, and one that comes back."""
    lower = LayerTar().add("t/gone", b"gone").add("t/stays", b"stays")
    for folder in ("t/opaque", "t/removed", "t/back"):
        lower.add(folder, kind=tarfile.DIRTYPE, mode=0o755)
        lower.add(f"{folder}/a", b"a").add(f"{folder}/b", b"b")
    upper = LayerTar().add("t/.wh.gone").add("t/.wh.removed").add("t/opaque", kind=tarfile.DIRTYPE, mode=0o700)
    upper.add("t/opaque/.wh..wh..opq").add("t/opaque/new", b"new").add("t/back", kind=tarfile.DIRTYPE, mode=0o755)
    upper.add("t/back/.wh.a")
    last = LayerTar().add("t/back", kind=tarfile.DIRTYPE, mode=0o750).add("t/back/a", b"again").add("t/gone", b"more")
    return [lower.bytes(), upper.bytes(), last.bytes()]


def attributes() -> list[bytes]:
    """File capabilities, user attributes with binary values, setuid, setgid, sticky, odd owners."""
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin1")
    layer = LayerTar()
    layer.add("t/ping", b"#!", mode=0o755, pax={"SCHILY.xattr.security.capability": capability})
    layer.add("t/noted", b"x", pax={"SCHILY.xattr.user.note": NOTE})
    layer.add("t/setuid", b"s", mode=0o4755).add("t/setgid", b"s", mode=0o2755)
    layer.add("t/sticky", kind=tarfile.DIRTYPE, mode=0o1777).add("t/none", b"secret", mode=0)
    layer.add("t/owned", b"o", owner=(4_000_000, 3_000_000_000))
    return [layer.bytes()]


def names() -> list[bytes]:
    """Not UTF-8, with newlines, quotes and backslashes, over 100 and over 255 bytes, of many folders."""
    layer = LayerTar(tarfile.GNU_FORMAT)
    layer.add(b"t/latin1-\xe9\xff", b"latin1").add(b"t/caf\xc3\xa9-\xf0\x9f\x90\xb3", b"utf8")
    layer.add("t/new\nline", b"n").add('t/quote"\\back', b"q").add("t/ space ", b"s").add("t/-rf", b"r")
    layer.add("t/" + "n" * 120, b"over 100").add("t/" + "m" * 255, b"255")
    deep = "t"
    for _ in range(9):
        deep += "/" + "d" * 200
        layer.add(deep, kind=tarfile.DIRTYPE, mode=0o755)
    layer.add(deep + "/" + "f" * 200, b"deep")
    layer.add(b"t/link-\xff", kind=tarfile.SYMTYPE, link=b"latin1-\xe9\xff")
    return [layer.bytes()]


def spelt_oddly() -> list[bytes]:
    """Names that begin with `./` or `/`, folders with a slash at the end, folders that come after their files."""
    layer = LayerTar(tarfile.GNU_FORMAT)
    layer.add("./t/dot", b"dot").add("/t/slash", b"slash").add("t/late/file", b"late")
    layer.add("t/late/", kind=tarfile.DIRTYPE, mode=0o711)
    return [layer.bytes()]


def times() -> list[bytes]:
    """The epoch, before it, after 2038 and 2106, and parts of a second."""
    layer = LayerTar()
    for number, mtime in enumerate([0, -1_000_000_000, -0.5, 2_200_000_000, 5_000_000_000, 1_600_000_000.123456]):
        layer.add(f"t/time-{number}", b"t", mtime=mtime)
    return [layer.bytes()]


def nodes() -> list[bytes]:
    """Character and block devices and a FIFO."""
    layer = LayerTar().add("t/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    layer.add("t/loop", kind=tarfile.BLKTYPE, device=(7, 300), mode=0o660).add("t/fifo", kind=tarfile.FIFOTYPE)
    return [layer.bytes()]


def empty_layers() -> list[bytes]:
    """Layers of nothing: an empty tar in two lengths, between others."""
    return [bytes(1024), LayerTar().add("t/a", b"a").bytes(), bytes(10240), LayerTar().add("t/b", b"b").bytes()]


def twice() -> list[bytes]:
    """The same layer in two places."""
    layer = LayerTar().add("t/same", b"same" * 1000).bytes()
    return [layer, LayerTar().add("t/other", b"other").add("t/.wh.same").bytes(), layer]


def hundred_and_twenty() -> list[bytes]:
    """As many layers as an overlay takes, nearly."""
    return [LayerTar().add(f"t/f{number}", str(number).encode()).bytes() for number in range(120)]


def ends() -> list[bytes]:
    """Tars without an end, with a long one, and with half of one."""
    endless, long, one_block = (LayerTar().add(f"t/{name}", b"x" * 700).bytes().rstrip(b"\0") for name in "abc")
    endless += bytes(-len(endless) % BLOCK)
    one_block += bytes(-len(one_block) % BLOCK + BLOCK)
    long += bytes(-len(long) % BLOCK + 50 * BLOCK)
    return [endless, long, one_block]


def sizes() -> list[bytes]:
    """Empty files, files around a block, around the reader's limits, and a large one."""
    layer = LayerTar()
    for size in (0, 1, 511, 512, 513, 4096, (512 << 10) - 1, 512 << 10, (512 << 10) + 1, (1 << 20) + 1, 5 << 20):
        layer.add(f"t/size-{size}", bytes(number * 7 % 251 for number in range(1009)) * (size // 1009 + 1))
        layer.add(f"t/exact-{size}", (b"0123456789abcdef" * (size // 16 + 1))[:size])
    return [layer.bytes()]


def beyond_eight_gigabytes(path: Path) -> int:
    """A tar of one file, `t-large`, whose size is in base 256 in its header; the file's size in bytes.

    Its content is a hole, and `at end` in its last bytes.
    """
    header = tarfile.TarInfo("t-large")
    header.size, header.mode = 9 << 30, 0o644
    with path.open("wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.seek(header.size - 6, 1)
        file.write(b"at end" + bytes(2 * BLOCK))
    return header.size


def marked(layers: list[bytes], word: str) -> list[bytes]:
    """The same layers, each with one more file in front, `t-WORD`, which has an attribute of a user's own.

    So no engine and no registry has them already. Layers of nothing stay what they are.
    """
    mark = tarfile.TarInfo(f"t-{word}")
    mark.size, mark.pax_headers = len(word), {"SCHILY.xattr.user.note": NOTE}
    front = mark.tobuf(tarfile.PAX_FORMAT) + word.encode().ljust(BLOCK, b"\0")
    return [front + layer if layer.strip(b"\0") else layer for layer in layers]


INPUTS: dict[str, Callable[[], list[bytes]]] = {
    made.__name__: made
    for made in (
        links,
        behind_a_link,
        whiteouts,
        attributes,
        names,
        spelt_oddly,
        times,
        nodes,
        empty_layers,
        twice,
        hundred_and_twenty,
        ends,
        sizes,
    )
}
