"""Layouts of loadable archives, read back with Python's tar reader."""

import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.messages import Layer
from services.core.archives.layout import (
    BLOCK_BYTES,
    END,
    ArchivePlan,
    Entry,
    chain_prefix,
    padding,
    plan_archive,
    usable,
)
from services.core.deployments.offers import Layout
from services.core.images.manifests import OCI_LAYER, OCI_LAYER_ZSTD, Manifest, sha256

CONTENT = {sha256(text): text for text in (b"base" * 300, b"tools", b"")}
BASE, TOOLS, EMPTY = CONTENT
SIZES = {digest: len(text) for digest, text in CONTENT.items()}
CONFIG = b'{"architecture":"amd64","os":"linux"}'
REFERENCE, FAMILIAR = "docker.io/library/web:1", "web:1"


def plan(layout: Layout, held: set[str], diff_ids: tuple[str, ...] = (BASE, TOOLS), **more: object) -> ArchivePlan:
    sizes: dict[str, int | None] = dict(SIZES)
    blobs = {BASE: more["blob"]} if isinstance(more.get("blob"), Layer) else None
    return plan_archive(
        layout=layout,
        reference=REFERENCE,
        familiar=FAMILIAR,
        config=CONFIG,
        diff_ids=diff_ids,
        held=held,
        sizes=sizes,
        blobs=blobs,  # type: ignore[arg-type]
    )


def written(archive: ArchivePlan) -> bytes:
    whole = b""
    for entry in archive.entries:
        content = entry.content if entry.content is not None else CONTENT[entry.diff_id or ""]
        whole += entry.header(len(content)) + content + padding(len(content))
    return whole + END


def files(archive: ArchivePlan) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(written(archive))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def test_a_full_docker_archive_names_and_holds_everything() -> None:
    """manifest.json names the config by its digest, the tag and each layer's file; all files are there."""
    found = files(plan("docker", {BASE, TOOLS}))
    [listing] = json.loads(found["manifest.json"])
    assert listing["RepoTags"] == [FAMILIAR]
    assert sha256(found[listing["Config"]]) == "sha256:" + listing["Config"].removesuffix(".json")
    assert [sha256(found[name]) for name in listing["Layers"]] == [BASE, TOOLS]


def test_a_thin_docker_archive_names_all_layers_and_holds_some() -> None:
    """The loader counts the layers named against the config; only the held one has a file."""
    found = files(plan("docker", {TOOLS}))
    [listing] = json.loads(found["manifest.json"])
    assert len(listing["Layers"]) == 2
    assert [name in found for name in listing["Layers"]] == [False, True]


def test_an_archive_may_hold_no_layer_at_all() -> None:
    """A config over layers that are all there: two small files."""
    assert len(files(plan("docker", set()))) == 2


def test_a_layer_that_occurs_twice_is_stored_once() -> None:
    """Both places name the same file."""
    archive = plan("docker", {BASE, EMPTY}, (EMPTY, BASE, EMPTY))
    [listing] = json.loads(files(archive)["manifest.json"])
    assert listing["Layers"][0] == listing["Layers"][2]
    assert [entry.diff_id for entry in archive.entries if entry.diff_id] == [EMPTY, BASE]


def test_an_oci_archive_leads_from_the_index_to_every_blob() -> None:
    """Every digest on the way is that of the file it names, and the index carries containerd's name for the image."""
    found = files(plan("oci", {BASE, TOOLS}))
    [top] = json.loads(found["index.json"])["manifests"]
    assert top["annotations"]["io.containerd.image.name"] == REFERENCE
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    manifest = Manifest.parse(found["blobs/sha256/" + top["digest"].removeprefix("sha256:")])
    assert manifest.digest == top["digest"]
    assert len(manifest.content) == top["size"]
    for descriptor in (manifest.body.config, *manifest.body.layers):
        blob = found["blobs/sha256/" + descriptor.digest.removeprefix("sha256:")]
        assert (sha256(blob), len(blob)) == (descriptor.digest, descriptor.size)


def test_a_thin_oci_archive_names_a_left_out_layer_as_the_engine_has_it() -> None:
    """A layer once pulled as zstd lies in the content store under that digest."""
    blob = Layer(digest="sha256:" + "e" * 64, diff_id=BASE, size_bytes=9, codec="zstd")
    archive = plan("oci", {TOOLS}, blob=blob)
    manifest = Manifest.parse(archive.entries[2].content or b"")
    assert [(layer.digest, layer.media_type) for layer in manifest.body.layers] == [
        (blob.digest, OCI_LAYER_ZSTD),
        (TOOLS, OCI_LAYER),
    ]
    assert [entry.diff_id for entry in archive.entries if entry.diff_id] == [TOOLS]


def test_a_held_layer_is_raw_whatever_the_registry_has() -> None:
    """What the archive holds is named by its diff ID."""
    blob = Layer(digest="sha256:" + "e" * 64, diff_id=BASE, size_bytes=9, codec="zstd")
    manifest = Manifest.parse(plan("oci", {BASE, TOOLS}, blob=blob).entries[2].content or b"")
    assert manifest.body.layers[0].digest == BASE


@pytest.mark.parametrize("layout", ["docker", "oci"])
@pytest.mark.parametrize("held", [set(), {TOOLS}, {BASE, TOOLS}])
def test_the_total_is_the_length_of_what_is_written(layout: Layout, held: set[str]) -> None:
    """Content-Length and progress totals are exact."""
    archive = plan(layout, held)
    assert archive.total_bytes == len(written(archive))


def test_the_same_image_gives_the_same_bytes() -> None:
    """One export can serve every range: nothing of the moment or the machine gets into an archive."""
    assert written(plan("oci", {TOOLS})) == written(plan("oci", {TOOLS}))


def test_an_unknown_size_leaves_the_total_unknown() -> None:
    """Then the archive is sent without a length; an OCI manifest cannot even be written."""
    unknown = {BASE: None}
    wanted = {"reference": REFERENCE, "familiar": FAMILIAR, "config": CONFIG, "diff_ids": (BASE,), "held": {BASE}}
    archive = plan_archive(layout="docker", sizes=unknown, **wanted)  # type: ignore[arg-type]
    assert archive.total_bytes is None
    with pytest.raises(ValueError, match="size of layer"):
        plan_archive(layout="oci", sizes=unknown, **wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 8 * 1024**3 - 1, 8 * 1024**3, 9_000_000_000, 10**13])
def test_a_header_is_one_block_for_every_size(size: int) -> None:
    """Also past the 8 GiB that ustar's octal field ends at."""
    header = Entry(name="layer", size_bytes=size, diff_id=BASE).header(size)
    assert len(header) == BLOCK_BYTES
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size


def test_layers_above_a_gap_are_not_usable() -> None:
    """A classic store knows a layer only on top of the same layers."""
    assert chain_prefix("abcd", ["abx", "a", "cd"]) == 2
    assert usable("abcd", ["abx", "cd"]) == ("a", "b")
    assert usable("abcd", []) == ()


def test_a_layer_needed_again_above_the_gap_is_sent() -> None:
    """`a` is there at the bottom, but its second place needs its file."""
    assert usable("abac", ["abx"]) == ("b",)
    assert usable("aab", ["aa"]) == ("a",)


@given(st.text("ab", max_size=8), st.lists(st.text("ab", max_size=8), max_size=4))
def test_what_is_left_out_is_never_needed(wanted: str, present: list[str]) -> None:
    """Whatever is present: each layer of the image is under the first gap or is not left out."""
    out = usable(wanted, present)
    kept = chain_prefix(wanted, present)
    assert all(diff_id not in out for diff_id in wanted[kept:])
    assert any(image[:kept] == wanted[:kept] for image in [*present, ""])
