"""Checking an archive while it flows by."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.core.archives.archive_check import ArchiveCheck, CheckedArchive
from services.core.archives.entry_rules import ArchiveLimits
from services.core.archives.layout import END
from services.core.images.manifests import OCI_INDEX, OCI_MANIFEST
from services.errors import BadArchive
from tests.unit.services.core.archives.tars import (
    CONFIG,
    LAYER,
    Form,
    blob,
    config_of,
    docker,
    entry,
    oci,
    oci_manifest,
    pointer,
    tar,
)

PLATFORM = "linux/amd64"
LIMITS = ArchiveLimits()


def _check(
    content: bytes, step: int = 1 << 20, limits: ArchiveLimits = LIMITS, platform: str = PLATFORM
) -> tuple[CheckedArchive, bytes]:
    check = ArchiveCheck("x.tar", limits)
    passed = b"".join(
        part for place in range(0, len(content), step) for part in check.feed(content[place : place + step])
    )
    return check.finish(platform), passed


def _names(content: bytes, step: int = 1 << 20) -> list[str]:
    return [name for image in _check(content, step)[0].images for name in image.names]


def _files(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {info.name: archive.extractfile(info) for info in archive}
    return {name: file.read() for name, file in found.items() if file is not None}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_docker_archive_tells_its_names(form: int) -> None:
    """Names come from manifest.json, whatever dialect the tar has."""
    long = {f"{'d' * 90}/{'e' * 60}/layer.tar": b"x"} if form != tarfile.USTAR_FORMAT else {}
    assert _names(tar({**long, **docker(["web:1", "web:2"])}, form)) == ["web:1", "web:2"]


def test_an_oci_layout_tells_its_names() -> None:
    """Names come from the index's annotations, several pointers to one image are one image."""
    checked, _ = _check(tar(oci("docker.io/library/web:1", "web:2")))
    assert [image.names for image in checked.images] == [("docker.io/library/web:1", "web:2")]


@pytest.mark.parametrize(
    ("value", "names"), [("docker.io/a/b:1", ["docker.io/a/b:1"]), ("b:1", ["b:1"]), ("1.0", []), ("", [])]
)
def test_ref_name_counts_where_it_is_a_name(value: str, names: list[str]) -> None:
    """Many writers put the whole name there, the specification wants a tag."""
    files = oci(None)
    index = json.loads(files["index.json"])
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": value}
    assert _names(tar(files | {"index.json": json.dumps(index).encode()})) == names


def test_an_image_without_a_name_is_an_image() -> None:
    """It is for the caller to ask for a name."""
    for content in (tar(docker(None)), tar(oci(None))):
        checked, _ = _check(content)
        assert [image.names for image in checked.images] == [()]


@given(st.integers(min_value=1, max_value=5000))
def test_pieces_do_not_matter(step: int) -> None:
    """However the stream is cut into chunks, the result is the same."""
    assert _check(tar(docker(["web:1"])), step) == _check(tar(docker(["web:1"])))


@given(st.integers(min_value=0, max_value=len(tar(docker(["web:1"])).rstrip(b"\0")) - 1))
def test_every_cut_is_noticed(length: int) -> None:
    """An archive that ends before its last entry does is never taken for whole."""
    with pytest.raises(BadArchive):
        _check(tar(docker(["web:1"]))[:length], 777)


def test_an_archive_without_its_end_marker_is_whole() -> None:
    """Some writers leave out the two empty blocks; what counts is that everything named is there."""
    content = tar(docker(["web:1"]))
    whole = len(content.rstrip(b"\0"))
    assert _names(content[: whole + -whole % 512]) == ["web:1"]


def test_what_passes_has_no_documents_and_no_end() -> None:
    """They are written anew, under the names that were decided on, for both kinds of store."""
    files = oci("web:1") | {"manifest.json": docker(["web:1"])["manifest.json"], "c.json": CONFIG, "a/layer.tar": LAYER}
    for contents in (oci("web:1"), docker(["web:1"]), files):
        checked, passed = _check(tar(contents))
        assert not {"manifest.json", "index.json", "oci-layout"} & set(_files(passed))
        config_path = checked.images[0].config_path
        written = _files(passed + checked.documents({config_path: ("docker.io/shop/web:9",)}) + END)
        (row,) = json.loads(written["manifest.json"])
        assert (row["RepoTags"], written[row["Config"]]) == (["shop/web:9"], CONFIG)
        assert [written[path] for path in row["Layers"]] == [LAYER]
        if checked.is_oci:
            (named,) = json.loads(written["index.json"])["manifests"]
            assert named["annotations"]["io.containerd.image.name"] == "docker.io/shop/web:9"
            assert json.loads(written["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_an_oci_layout_that_contradicts_manifest_json_is_left_out() -> None:
    """Engine 25.0.0 wrote one without layers; `manifest.json` counts, as a classic store takes it."""
    files = docker(["web:1"])
    manifest = json.dumps({"config": pointer(CONFIG, "application/vnd.oci.image.config.v1+json"), "layers": None})
    files |= {blob(manifest.encode()): manifest.encode(), blob(CONFIG): CONFIG}
    index = {"manifests": [pointer(manifest.encode(), OCI_MANIFEST)]}
    checked, _ = _check(tar(files | {"index.json": json.dumps(index).encode(), "oci-layout": b"{}"}))
    assert (checked.is_oci, checked.images[0].layers) == (False, ("a/layer.tar",))


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return entry(name, kind=kind, link=target)


def test_a_layer_may_be_a_link_to_another() -> None:
    """`docker save` before 25 wrote one for a layer that occurs twice; hard links are as good."""
    files = docker(["web:1"], layers=())
    for kind, target in ((tarfile.SYMTYPE, "../b/layer.tar"), (tarfile.LNKTYPE, "b/layer.tar")):
        content = tar({"b/layer.tar": LAYER}).rstrip(b"\0")
        content += bytes(-len(content) % 512) + _link("a/layer.tar", target, kind) + tar(files)
        checked, _ = _check(content)
        assert checked.images[0].layers == ("b/layer.tar",)


def test_an_empty_layer_path_leaves_a_layer_out() -> None:
    """As Cloud Native Buildpacks write it; a path may begin with a slash."""
    files = docker(["web:1"]) | {"c.json": config_of("sha256:1", "sha256:2")}
    files["manifest.json"] = b'[{"Config":"/c.json","RepoTags":["web:1"],"Layers":["","/a/layer.tar"]}]'
    checked, _ = _check(tar(files))
    assert checked.images[0].layers == (None, "a/layer.tar")
    assert checked.left_out == checked.images


def _many(*held: str, named: Iterable[str] = ("arm64", "amd64")) -> dict[str, bytes]:
    """A layout of an index of the platforms `named`, with the images of those in `held`."""
    files: dict[str, bytes] = {blob(LAYER): LAYER, "oci-layout": b"{}"}
    pointers = []
    for architecture in named:
        config = config_of("sha256:1", architecture=architecture)
        manifest = oci_manifest(config)
        platform = {"architecture": architecture, "os": "linux"}
        pointers.append(pointer(manifest, OCI_MANIFEST, platform=platform))
        if architecture in held:
            files |= {blob(manifest): manifest, blob(config): config}
    pointers.append(
        pointer(b"attestation", OCI_MANIFEST, platform={"architecture": "unknown", "os": "unknown"}, annotations=None)
    )
    index = json.dumps({"manifests": pointers}).encode()
    top = {"manifests": [pointer(index, OCI_INDEX, annotations={"io.containerd.image.name": "web:1"})]}
    return files | {blob(index): index, "index.json": json.dumps(top).encode()}


def test_of_several_platforms_the_engines_own_is_taken() -> None:
    """The others may be missing: then the engine is given that one alone, else the index."""
    one, _ = _check(tar(_many("amd64")))
    assert one.images[0].config.architecture == "amd64"
    assert one.images[0].pointer is not None
    assert one.images[0].pointer.platform is not None
    everything = _many("amd64", "arm64") | {blob(b"attestation"): b"attestation"}
    arm, _ = _check(tar(everything), platform="linux/arm64")
    assert arm.images[0].config.architecture == "arm64"


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (("arm64",), "no image for linux/amd64: it holds linux/arm64, and names one"),
        ((), "no image for linux/amd64: it holds none, and names one"),
    ],
)
def test_a_platform_that_is_missing_is_named(held: tuple[str, ...], reason: str) -> None:
    """With the platforms that are there."""
    with pytest.raises(BadArchive, match=reason):
        _check(tar(_many(*held)))
    with pytest.raises(BadArchive, match=r"no image for linux/riscv64: it holds linux/arm64$"):
        _check(tar(_many("arm64", named=["arm64"])), platform="linux/riscv64")


def test_manifests_of_several_platforms_in_the_index_itself_are_one_image() -> None:
    """Some writers leave out the index between."""
    files: dict[str, bytes] = {blob(LAYER): LAYER}
    pointers = []
    for architecture in ("arm64", "amd64"):
        config = config_of("sha256:1", architecture=architecture)
        manifest = oci_manifest(config)
        files |= {blob(manifest): manifest, blob(config): config}
        pointers.append(pointer(manifest, OCI_MANIFEST, platform={"architecture": architecture, "os": "linux"}))
    checked, _ = _check(tar(files | {"index.json": json.dumps({"manifests": pointers}).encode()}))
    assert [image.config.architecture for image in checked.images] == ["amd64"]


def _without(files: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in names}


MANIFEST = oci_manifest()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello" * 1000, "is no tar archive"),
        (gzip.compress(tar(docker(["a:1"]))), "is packed twice, the second time by gzip"),
        (zstandard.compress(tar(docker(["a:1"]))), "is packed twice, the second time by zstd"),
        (tar({"notes.txt": b"hi"}), "holds neither manifest.json nor index.json"),
        (tar({"./etc/passwd": b"root"}), "a file system: it begins with 'etc/passwd'"),
        (tar({"manifest.json": b"not json"}), "manifest.json cannot be read"),
        (tar({"manifest.json": b"[]"}), "holds no image"),
        (tar({"manifest.json": b"null"}), "holds no image"),
        (tar({"index.json": b"[]"}), "index.json cannot be read"),
        (tar({"index.json": b'{"manifests":[]}'}), "holds no image: its index.json names none"),
        (tar({"index.json": b'{"manifests":null}'}), "holds no image: its index.json names none"),
        (tar(docker(["a:1"], layers=())), "not whole: its layer a/layer.tar is missing"),
        (tar(_without(docker(["a:1"]), "c.json")), "not whole: its config c.json is missing"),
        (tar(docker(["a:1"]) | {"c.json": b"{}"}), "its config c.json cannot be read"),
        (tar(docker(["a:1"]) | {"c.json": b"no json"}), "its config c.json is no JSON document"),
        (tar(docker(["a:1"]) | {"c.json": config_of("sha256:1", "sha256:2")}), "contradicts itself: .* 2 layers"),
        (tar(_without(oci("a:1"), blob(MANIFEST))), "not whole: its manifest blob blobs/sha256/"),
        (tar(_without(oci("a:1"), blob(CONFIG))), "not whole: its config blob"),
        (tar(_without(oci("a:1"), blob(LAYER))), "not whole: its layer"),
        (tar(oci("a:1") | {blob(MANIFEST): MANIFEST + b" "}), "is damaged: its blob sha256:"),
        (tar({"a": b"x" * 600})[:512] + bytes(1000) + b"x" * 600, "cannot be read: this is no tar header"),
    ],
)
def test_what_is_no_image_archive_is_refused(content: bytes, reason: str) -> None:
    """The message says what it is instead, or what is missing."""
    with pytest.raises(BadArchive, match=reason):
        _check(content)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (entry("../x"), "leads out of the archive"),
        (entry("a/../../x"), "leads out of the archive"),
        (_link("a/layer.tar", "../../etc/shadow"), "the link 'a/layer.tar' leads out of the archive"),
        (_link("a/layer.tar", "/etc/shadow"), "leads out of the archive, to '/etc/shadow'"),
        (_link("a", "../x", tarfile.LNKTYPE), "leads out of the archive"),
        (_link("manifest.json", "other"), "manifest.json is a link"),
        (_link("a", ".") + entry("a/x"), "'a/x' lies below a link, 'a'"),
        (entry("sda", kind=tarfile.BLKTYPE), "is a device node"),
        (entry("tty", kind=tarfile.CHRTYPE), "is a device node"),
        (entry("pipe", kind=tarfile.FIFOTYPE), "is a FIFO"),
        (entry("x", kind=b"Z"), "is an entry of an unknown type"),
        (entry("n" * 256), "has a part of more than 255 bytes"),
        (entry("n/" * 2100 + "x"), "has more than 4096 bytes"),
    ],
)
def test_what_reaches_out_of_an_archive_is_refused(header: bytes, reason: str) -> None:
    """At the header that says so."""
    check = ArchiveCheck("x.tar")
    with pytest.raises(BadArchive, match=reason):
        list(check.feed(header))


SMALL = ArchiveLimits(
    entries=50, names_bytes=2000, documents_bytes=1000, document_bytes=600, layer_entries=100, unpacked_bytes=100_000
)
SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "t/disk",
    "GNU.sparse.realsize": "9" * 12,
}


def _sparse() -> bytes:
    info = tarfile.TarInfo("t/GNUSparseFile.1/disk")
    info.pax_headers = SPARSE
    return info.tobuf(tarfile.PAX_FORMAT) + END


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tar({f"f{number}": b"" for number in range(51)}), "more than 50 entries"),
        (tar({f"{number:0200}": b"" for number in range(11)}), "names of its entries have more than 2000 bytes"),
        (tar({"manifest.json": b"[" + b" " * 600}), "its manifest.json has 601 bytes; 600 are the most"),
        (tar({f"{number}.json": b"{" + b" " * 500 for number in range(3)}), "in more than 1000 bytes"),
        (tar({"layer": tar({f"f{number}": b"" for number in range(101)})}), "layers hold more than 100 files"),
        (tar({"layer": tar({"disk": bytes(100_001)})}), "take more than 100000 bytes"),
        (tar({"layer": gzip.compress(tar({"disk": bytes(100_001)}))}), "take more than 100000 bytes"),
        (tar({"layer": zstandard.compress(tar({"disk": bytes(100_001)}))}), "take more than 100000 bytes"),
        (tar({f"{n}": gzip.compress(tar({"disk": bytes(60_000)})) for n in range(2)}), "take more than 100000 bytes"),
        (tar({"layer": gzip.compress(tar({}) + bytes(200_000))}), "longer than 100000 bytes"),
        (tar({"layer": _sparse()}), "take more than 100000 bytes"),
    ],
)
def test_an_archive_that_would_fill_a_disk_is_refused(content: bytes, reason: str) -> None:
    """By number, by names, by documents, by what layers unpack to, packed or sparse."""
    with pytest.raises(BadArchive, match=f"x.tar (is too large: .*|cannot be read: ){reason}"):
        _check(content, limits=SMALL)


def test_a_layer_that_is_none_is_the_engines_to_refuse() -> None:
    """What cannot be looked into passes."""
    for layer in (b"no tar" * 1000, gzip.compress(b"no tar" * 1000), gzip.compress(tar({"a": b"x"}))[:-30], b"", b"ab"):
        files = docker(["a:1"]) | {"a/layer.tar": layer}
        assert _names(tar(files)) == ["a:1"]


def test_layers_packed_by_zstd_are_known() -> None:
    """So that an engine that cannot read them is not asked to."""
    checked, _ = _check(tar(docker(["a:1"]) | {"a/layer.tar": zstandard.compress(tar({"a": b"x"}))}))
    assert checked.has_zstd
    assert not replace(checked, packings={}).has_zstd


def test_a_file_system_is_refused_at_its_first_entry() -> None:
    """Not after gigabytes were sent."""
    check = ArchiveCheck("x.tar")
    with pytest.raises(BadArchive, match="file system"):
        list(check.feed(tar({"usr/bin/sh": b"x" * 100_000})[:512]))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_layer_of_nine_gibibytes_is_one_entry(form: Form) -> None:
    """Its size is in a pax record, or in base 256; its bytes are counted, not collected, and no entries."""
    check = ArchiveCheck("x.tar")
    info = tarfile.TarInfo("a/layer.tar")
    info.size = 9 << 30
    passed = sum(len(part) for part in check.feed(info.tobuf(form)))
    passed += sum(len(part) for part in check.feed(entry("etc/hostname")))
    block = bytes(1 << 20)
    for _ in range(64):
        passed += sum(len(part) for part in check.feed(block))
    assert passed == check.seen_bytes
    with pytest.raises(BadArchive, match="is cut off after"):
        check.finish(PLATFORM)
