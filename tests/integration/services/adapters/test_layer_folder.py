"""Mounted layers on this kernel: what is restored, and what a hostile range or a crafted layer cannot do."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from deploy.machine.polling import poll
from events.messages import Layer
from services.adapters import erofs_mounts
from services.adapters.direct_reads import DirectReads
from services.adapters.erofs_index import IndexMaker
from services.adapters.kernel_mounts import FILE_SYSTEM, mount, mounts_below, not_mounted, unmount
from services.adapters.layer_folder import LayerFolder
from services.adapters.loop_devices import backing_file
from services.adapters.unpacked_layers import UnpackedLayers, UnpackLimits
from services.core.archives.tar_split import decode, tar_size
from services.core.images.image import Store
from services.core.mounts.layer_mounts import blob_name
from services.errors import LayersNotMounted
from tests.contract.test_layer_mounts import image_of
from tests.integration.hard_layers import LayerTar, beyond_eight_gigabytes
from tests.laboratory import Lab, mkfs_erofs

pytestmark = pytest.mark.real


@dataclass
class Host:
    """A folder for mounts and a registry's storage."""

    folder: Path
    storage: Path
    make: Callable[..., LayerFolder]

    def add(self, tar: bytes) -> Layer:
        """A layer in the registry's storage."""
        digits = sha256(tar).hexdigest()
        blob = self.blob(digits)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(tar)
        return Layer(digest=f"sha256:{digits}", diff_id=f"sha256:{digits}", size_bytes=len(tar))

    def add_packed(self, tar: bytes, blob: bytes | None = None) -> Layer:
        """A layer that the registry has as `blob`: by itself, what gzip makes of it."""
        packed = self.add(gzip.compress(tar, mtime=0) if blob is None else blob)
        return Layer(
            digest=packed.digest,
            diff_id=f"sha256:{sha256(tar).hexdigest()}",
            size_bytes=packed.size_bytes,
            codec="gzip",
        )

    def blob(self, digits: str) -> Path:
        return self.storage / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def view(self, layer: Layer, kind: str = "layers") -> Path:
        return self.view_of(layer.diff_id.removeprefix("sha256:") if kind == "splits" else blob_name(layer), kind)

    def view_of(self, digits: str, kind: str = "layers") -> Path:
        return self.folder / "ranges/r-1" / kind / digits

    def in_range(self, script: str) -> int:
        """Run a script as root of a range: in a namespace that gets the host's mounts and gives none back."""
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
        return subprocess.run(command, cwd=self.folder / "ranges/r-1", capture_output=True, check=False).returncode


@pytest.fixture
async def host(tmp_path: Path, lab: Lab) -> AsyncIterator[Host]:
    """Nothing is mounted yet, and nothing stays mounted."""
    folder, storage = tmp_path / "mounts", tmp_path / "storage"
    storage.mkdir()
    with mkfs_erofs(lab.cache) as program:

        def make(*, unpack: UnpackLimits | None = None, **limits: int) -> LayerFolder:
            indexes = IndexMaker(folder / "index", program=str(program), seconds=60, **limits)
            unpacked = UnpackedLayers(folder / "unpacked", limits=unpack)
            return LayerFolder(folder, storage=storage, indexes=indexes, unpacked=unpacked)

        yield Host(folder, storage, make)
        for point in reversed(mounts_below(folder)):
            with suppress(OSError):
                unmount(point.path)


def a_tar(content: bytes = b"right") -> bytes:
    return LayerTar().add("t/file", content).bytes()


async def show(host: Host, *layers: Layer, store: Store = "containerd") -> LayerFolder:
    mounts = host.make()
    await mounts.show("r-1", layers, grant="t-1", engine_id="e-1", store=store)
    return mounts


async def test_a_layer_is_its_files_and_its_tar(host: Host) -> None:
    """The root folder, which no entry names, has the mode that an engine gives it."""
    layer = host.add(a_tar())
    await show(host, layer)
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert (host.view(layer, "blobs") / "data").read_bytes() == a_tar()
    assert host.view(layer).stat().st_mode & 0o7777 == 0o755


async def test_a_classic_store_is_shown_the_tar_split_in_place_of_the_tar(host: Host) -> None:
    """With it and the files the engine makes the tar again; beside it is the layer's size as the engine counts it."""
    layer = host.add(a_tar())
    await show(host, layer, store="classic")
    split = host.view(layer, "splits")
    batches = list(decode([gzip.decompress((split / "tar-split.json.gz").read_bytes())]))
    assert tar_size(batches) == layer.size_bytes
    assert (split / "size").read_text() == "5"
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert not host.view(layer, "blobs").exists()


async def test_a_layer_without_a_tar_split_is_not_shown_to_a_classic_store(host: Host) -> None:
    """Two entries of one name: no engine gives such a layer back; the range pulls it and sees nothing of it here."""
    layer = host.add(LayerTar().add("t/file", b"one").add("./t/file", b"two").bytes())
    with pytest.raises(LayersNotMounted, match="occurs twice"):
        await show(host, layer, store="classic")
    assert not host.view(layer).exists()


async def test_a_root_folder_that_the_tar_names_is_left_as_it_is(host: Host) -> None:
    """Whatever mode it has there, also the one that mkfs.erofs would give it."""
    layer = host.add(LayerTar().add("./", kind=tarfile.DIRTYPE, mode=0o777).bytes())
    await show(host, layer)
    assert host.view(layer).stat().st_mode & 0o7777 == 0o777


async def test_what_was_shown_comes_back(host: Host) -> None:
    """After a reboot: no mount is there, only the records and empty mount points; what no record names is gone."""
    layer = host.add(a_tar())
    await show(host, layer)
    for point in reversed(mounts_below(host.folder)):
        unmount(point.path)
    stray = host.folder / "ranges/r-1/layers" / ("0" * 64)
    stray.mkdir()
    await host.make().restore()
    (host.folder / "ranges/r-1/layers" / ("1" * 64)).mkdir()
    assert await host.make().restore() == []
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert {path.name for path in (host.folder / "ranges/r-1/layers").iterdir()} == {host.view(layer).name}


async def test_a_check_while_many_layers_are_made_ready_takes_none_of_them_away(host: Host) -> None:
    """The check removes what no record names; those that are on their way into one are left, finished or not."""
    layers = [host.add(a_tar(b"%d" % number)) for number in range(12)]
    mounts = host.make()
    await mounts.restore()
    shown = asyncio.create_task(mounts.show("r-1", layers, grant="t-1", engine_id="e-1"))
    checks = 0
    while not shown.done():
        assert await mounts.restore() == []
        checks += 1
    await shown
    assert checks > 1
    for number, layer in enumerate(layers):
        assert (host.view(layer) / "t/file").read_bytes() == b"%d" % number
        assert (host.view(layer, "blobs") / "data").is_file()


async def test_what_was_prepared_stays_as_long_as_its_blob(host: Host) -> None:
    """For both stores. It goes with the blob, or when that was written anew."""
    mounts = host.make()
    kept, gone, anew = (host.add(a_tar(content)) for content in (b"kept", b"gone", b"anew"))
    for layer in (kept, gone, anew):
        await mounts.prepare(layer)
    kept_name, gone_name, anew_name = (layer.diff_id.removeprefix("sha256:") for layer in (kept, gone, anew))
    host.blob(gone_name).unlink()
    later = host.blob(anew_name).stat().st_mtime + 60
    os.utime(host.blob(anew_name), (later, later))
    assert await mounts.restore() == []
    assert _names(host.folder / "index") == {f"{kept_name}.{ending}" for ending in ("erofs", "blob", "split")}
    await mounts.show("r-1", [anew], grant="t-1", engine_id="e-1")
    assert (host.view(anew) / "t/file").read_bytes() == b"anew"


async def test_unused_images_have_a_limit(host: Host) -> None:
    """The oldest go first; what is shown stays."""
    mounts = host.make(unused_limit_bytes=1)
    one, two = host.add(a_tar(b"1")), host.add(a_tar(b"2"))
    await mounts.prepare(one)
    await mounts.show("r-1", [two], grant="t-1", engine_id="e-1")
    assert await mounts.restore() == []
    shown = two.diff_id.removeprefix("sha256:")
    assert _names(host.folder / "index") == {f"{shown}.erofs", f"{shown}.blob"}


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


async def test_a_kernel_that_mounts_no_plain_files_gets_loop_devices(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed with the first mount. What is mounted is known again, and no device is left."""

    def older(source: Path, *rest: str | int) -> None:
        if not str(source).startswith("/dev/loop"):
            raise OSError(errno.ENOTBLK, "Block device required")
        mount(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(erofs_mounts, "mount", older)
    layer, packed = host.add(a_tar()), host.add_packed(a_tar(b"packed"))
    await show(host, layer, packed)
    assert (host.view(packed) / "t/file").read_bytes() == b"packed"
    assert (host.view(packed, "blobs") / "data").read_bytes() == gzip.compress(a_tar(b"packed"), mtime=0)
    view = host.view(layer)
    devices = [view.stat().st_dev, host.view(layer, "blobs").stat().st_dev]
    sources = [Path(point.source) for point in mounts_below(host.folder) if point.kind == FILE_SYSTEM]
    assert (view / "t/file").read_bytes() == b"right"
    assert (host.view(layer, "blobs") / "data").read_bytes() == a_tar()
    again = host.make()
    assert await again.restore() == []
    assert [view.stat().st_dev, host.view(layer, "blobs").stat().st_dev] == devices
    await again.forget("r-1")
    assert not view.exists()
    assert {source.parent for source in sources} == {Path("/dev")}
    assert poll(lambda: not any(map(backing_file, map(str, sources))), seconds=30)


async def test_large_layers_are_read_directly_with_the_read_ahead_of_their_disk(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in the page cache, not twice; the content is right to its last byte, also past a page's border."""
    monkeypatch.setattr(erofs_mounts, "DirectReads", partial(DirectReads, least_bytes=0))
    before = _backing_devices()
    layer, packed = host.add(a_tar()), host.add_packed(a_tar(os.urandom(300_000)))
    await show(host, layer, packed)
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert (host.view(layer, "blobs") / "data").read_bytes() == a_tar()
    blob = host.blob(packed.digest.removeprefix("sha256:")).read_bytes()
    assert (host.view(packed, "blobs") / "data").read_bytes() == blob
    wanted = DirectReads(least_bytes=0).read_ahead_kib(host.blob(layer.digest.removeprefix("sha256:")))
    assert wanted is not None
    made = _backing_devices().keys() - before.keys()
    assert len(made) >= 2
    assert all(_backing_devices()[name] >= wanted for name in made)
    shown = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(host.folder) in line]
    assert [line for line in shown if " erofs " in line and "device=" in line and "directio" not in line] == []


async def test_a_layer_that_is_not_large_is_read_from_the_page_cache_of_its_blob(host: Host) -> None:
    """Where it is after a push."""
    layer = host.add(a_tar())
    await show(host, layer)
    shown = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(host.folder) in line]
    assert [line for line in shown if "directio" in line] == []


async def test_a_kernel_without_direct_reads_of_mounts_reads_them_as_before(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option is refused like a bad index: what mounts without it was right."""
    tried: list[str] = []

    def older(source: Path, target: str, kind: str, flags: int, options: str) -> None:
        tried.append(options)
        if "directio" in options:
            raise OSError(errno.EINVAL, "Invalid argument")
        mount(source, target, kind, flags, options)

    monkeypatch.setattr(erofs_mounts, "DirectReads", partial(DirectReads, least_bytes=0))
    monkeypatch.setattr(erofs_mounts, "mount", older)
    layer = host.add(a_tar())
    await show(host, layer)
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert len([options for options in tried if "directio" in options]) == 1


def _backing_devices() -> dict[str, int]:
    """Name → read-ahead in KiB, of EROFS mounts."""
    folders = Path("/sys/devices/virtual/bdi").glob("erofs-*")
    return {folder.name: int((folder / "read_ahead_kb").read_text()) for folder in folders}


@pytest.mark.parametrize("content", [b"right", os.urandom(300_000), os.urandom(65_000)], ids=["small", "parts", "part"])
async def test_a_compressed_layer_is_its_files_and_its_blob(host: Host, content: bytes) -> None:
    """The blob ends within a block. On the classic store the tar-split is that of the unpacked tar."""
    layer = host.add_packed(a_tar(content))
    assert layer.size_bytes % 512
    mounts = await show(host, layer)
    assert (host.view(layer) / "t/file").read_bytes() == content
    assert (host.view(layer, "blobs") / "data").read_bytes() == gzip.compress(a_tar(content), mtime=0)
    await mounts.forget("r-1")
    await mounts.show("r-1", [layer], grant="t-2", engine_id="e-1", store="classic")
    split = host.view(layer, "splits") / "tar-split.json.gz"
    assert tar_size(list(decode([gzip.decompress(split.read_bytes())]))) == len(a_tar(content))
    assert len(list((host.folder / "unpacked").iterdir())) == 1


async def test_an_unpacked_copy_is_made_again_when_it_is_gone_or_cut(host: Host) -> None:
    """Gone: what is mounted stays right. Cut: it is mounted anew. When its blob is gone as well, that is told."""
    layer = host.add_packed(a_tar(b"right" * 9000))
    await show(host, layer)
    (copy,) = (host.folder / "unpacked").iterdir()
    copy.unlink()
    assert (host.view(layer) / "t/file").read_bytes() == b"right" * 9000
    assert await host.make().restore() == []
    os.truncate(copy, 4096)
    assert await host.make().restore() == []
    assert copy.stat().st_size == len(a_tar(b"right" * 9000))
    assert (host.view(layer) / "t/file").read_bytes() == b"right" * 9000
    host.blob(layer.digest.removeprefix("sha256:")).unlink()
    (problem,) = await host.make().restore()
    assert "what was unpacked of it can be read" in problem.why
    os.truncate(copy, 4096)
    (problem,) = await host.make().restore()
    assert "its content is missing" in problem.why
    assert not host.view(layer).exists()


async def test_unpacked_copies_are_kept_up_to_their_limit(host: Host) -> None:
    """What a range is shown stays; the rest goes when it is more, with the indexes that were made of it."""
    one, two = host.add_packed(a_tar(b"1")), host.add_packed(a_tar(b"2"))
    roomy = host.make()
    await roomy.prepare(one)
    await roomy.show("r-1", [two], grant="t-1", engine_id="e-1")
    assert await roomy.restore() == []
    assert len(_names(host.folder / "unpacked")) == 2
    assert f"{one.diff_id.removeprefix('sha256:')}.split" in _names(host.folder / "index")
    assert await host.make(unpack=UnpackLimits(unused_bytes=0), unused_limit_bytes=0).restore() == []
    assert {name.rpartition(".")[0] for name in _names(host.folder / "unpacked")} == {blob_name(two)}
    digits = [digest.removeprefix("sha256:") for digest in (two.diff_id, two.digest)]
    assert _names(host.folder / "index") == {f"{digits[0]}.erofs", f"{digits[1]}.blob"}
    await roomy.forget("r-1")
    assert await host.make(unpack=UnpackLimits(unused_bytes=0), unused_limit_bytes=0).restore() == []
    assert (_names(host.folder / "unpacked"), _names(host.folder / "index")) == (set(), set())


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(gzip.compress(b"another layer"), id="other-content"),
        pytest.param(gzip.compress(a_tar())[:-9], id="cut-off"),
        pytest.param(gzip.compress(a_tar()) + b"garbage", id="trailing-garbage"),
        pytest.param(gzip.compress(bytes(1 << 20)) * 9, id="bomb"),
    ],
)
async def test_a_compressed_layer_that_is_another_one_is_refused_and_leaves_nothing(host: Host, blob: bytes) -> None:
    """No mount, no mount point, no copy, no index, no record."""
    layer, mounts = host.add_packed(a_tar(), blob), host.make(unpack=UnpackLimits(layer_bytes=1 << 20))
    for store in ("containerd", "classic"):
        with pytest.raises(LayersNotMounted, match="no unpacked copy"):
            await mounts.show("r-1", [layer], grant="t-1", engine_id="e-1", store=store)
    assert not host.view(layer).exists()
    assert list((host.folder / "unpacked").iterdir()) == []
    assert list((host.folder / "index").iterdir()) == []
    assert await mounts.shown() == {}


async def test_a_foreign_mount_is_replaced(host: Host) -> None:
    """Somebody mounted something else over a range's view."""
    layer = host.add(a_tar())
    mounts = await show(host, layer)
    mount(None, host.view(layer), "tmpfs")
    assert await mounts.restore() == []
    assert (host.view(layer) / "t/file").read_bytes() == b"right"


async def test_a_layer_whose_blob_is_gone_is_told_and_has_no_mount_point(host: Host) -> None:
    """An empty folder would start containers without their files."""
    layer = host.add(a_tar())
    await show(host, layer)
    for point in reversed(mounts_below(host.folder)):
        unmount(point.path)
    host.blob(layer.digest.removeprefix("sha256:")).unlink()
    problems = await host.make().restore()
    assert [(one.range_id, one.diff_id) for one in problems] == [("r-1", layer.diff_id)] * 2
    assert not host.view(layer).exists()


async def test_a_blob_that_was_cut_off_or_removed_is_told(host: Host) -> None:
    """What is mounted stays: of the first, what is left of it can be read, of the second everything."""
    cut, gone = host.add(a_tar(b"cut" * 9000)), host.add(a_tar(b"gone"))
    await show(host, cut, gone)
    with host.blob(cut.digest.removeprefix("sha256:")).open("r+b") as blob:
        blob.truncate(4096)
    host.blob(gone.digest.removeprefix("sha256:")).unlink()
    problems = {one.diff_id: one.why for one in await host.make().restore()}
    assert problems.keys() == {cut.diff_id, gone.diff_id}
    assert "4096 bytes" in problems[cut.diff_id]
    assert host.view(cut).is_mount()
    assert host.view(gone).is_mount()


async def test_what_covers_a_layer_is_not_taken_for_it(host: Host) -> None:
    """Where nothing is mounted, and where something else is; as an agent in the range looks."""
    layer = host.add(a_tar())
    await show(host, layer)
    view, other = host.view(layer), host.folder / "ranges/r-1/layers/nothing"
    assert not_mounted(host.folder, {view, other}, FILE_SYSTEM) == [other]
    mount(Path("cover"), view, "tmpfs")
    try:
        assert not_mounted(host.folder, {view}, FILE_SYSTEM) == [view]
    finally:
        unmount(view)
    assert not_mounted(host.folder, set(), FILE_SYSTEM) == []


async def test_root_in_a_range_changes_no_tar_split(host: Host) -> None:
    """An engine makes layers' tars with it, so a changed one would change what is saved and pushed, here alone."""
    layer = host.add(a_tar())
    await show(host, layer, store="classic")
    split = host.view(layer, "splits")
    name, content = split.name, (split / "tar-split.json.gz").read_bytes()
    file = f"splits/{name}/tar-split.json.gz"
    for attack in (
        f"echo more >> {file}",
        f"chmod u+w {file}",
        f"rm -f {file}",
        f"mv {file} splits/{name}/other",
        f"mount -o remount,rw splits/{name} && touch splits/{name}/new",
        f"mount -o remount,bind,rw splits/{name} && touch splits/{name}/new",
    ):
        assert host.in_range(attack) != 0, attack
    # Its own view it may take away or cover; everybody else sees what was made.
    assert host.in_range(f"umount splits/{name} && mkdir -p splits/{name} && echo lie > {file}") == 0
    await host.make().restore()
    assert (split / "tar-split.json.gz").read_bytes() == content
    assert sorted(path.name for path in split.iterdir()) == ["size", "tar-split.json.gz"]


async def test_root_in_a_range_changes_nothing_of_what_the_next_engine_starts_with(host: Host) -> None:
    """It writes, covers and replaces what it sees of it; the host's is as it was, and no folder beside it counts."""
    layer = host.add(a_tar())
    mounts = await show(host, layer)
    await mounts.seed("r-1", [image_of(host.add, "web", layer)])
    name = (await mounts.shown())["r-1"].seed
    file = f"seeds/{name}/seed.json"
    seed = host.folder / "ranges/r-1" / file
    content = seed.read_bytes()
    for attack in (
        f"echo more >> {file}",
        f"rm -f {file}",
        f"mount -o remount,rw seeds/{name} && touch seeds/{name}/new",
        f"mount -o remount,bind,rw seeds/{name} && touch seeds/{name}/new",
    ):
        assert host.in_range(attack) != 0, attack
    assert (
        host.in_range(f"umount seeds/{name} && mkdir -p seeds/{name} seeds/0 && echo lie | tee {file} seeds/0/a") == 0
    )
    assert await host.make().restore() == []
    assert seed.read_bytes() == content
    # What is no mount is not what the init takes (dind/seed_file.py).
    assert [one for one in (host.folder / "ranges/r-1/seeds").iterdir() if one.is_mount()] == [seed.parent]


async def test_root_in_a_range_changes_its_own_view_alone(host: Host) -> None:
    """It may mount: it writes, makes the view writable, covers and unmounts it; host and blob stay what they are."""
    layer = host.add(a_tar())
    await show(host, layer)
    files, tar = f"layers/{host.view(layer).name}", f"blobs/{host.view(layer).name}"
    for script in (
        f"echo wrong > {files}/t/file",
        f"mount -o remount,rw {files} && echo wrong > {files}/t/file",
        f"mount -o remount,rw,bind {tar}; echo wrong > {tar}/data",
        f"rm {files}/t/file",
    ):
        assert host.in_range(script) != 0, script
    assert host.in_range(f"mount -t tmpfs none {files} && umount -l {files} && umount -l {files} && umount {tar}") == 0
    assert (host.view(layer) / "t/file").read_bytes() == b"right"
    assert host.blob(layer.digest.removeprefix("sha256:")).read_bytes() == a_tar()


async def test_after_a_reboot_no_mount_point_is_there_before_its_mount(host: Host) -> None:
    """Until the layer-mounter is up, an engine finds nothing where a layer was, and refuses the container."""
    layer = host.add(a_tar())
    await show(host, layer)
    for point in reversed(mounts_below(host.folder)):
        unmount(point.path)
    assert not host.view(layer).exists()
    assert not host.view(layer, "blobs").exists()


async def test_a_view_that_a_range_holds_open_is_taken_away_all_the_same(host: Host) -> None:
    """The host lets go; whoever holds a file keeps that file alone."""
    layer = host.add(a_tar())
    mounts = await show(host, layer)
    with (host.view(layer) / "t/file").open("rb") as held:
        await mounts.forget("r-1")
        assert held.read() == b"right"
    assert not host.view(layer).exists()
    assert [point.path for point in mounts_below(host.folder)] == [host.folder]


async def test_a_link_that_a_range_planted_is_not_followed(host: Host, tmp_path: Path) -> None:
    """Its folder leads elsewhere: the link goes, and nothing is mounted where it led."""
    layer, elsewhere = host.add(a_tar()), tmp_path / "elsewhere"
    elsewhere.mkdir()
    mounts = await show(host, layer)
    await mounts.forget("r-1")
    (host.folder / "ranges/r-1/layers").symlink_to(elsewhere)
    assert await mounts.restore() == []
    await mounts.show("r-1", [layer], grant="t-2", engine_id="e-1")
    assert list(elsewhere.iterdir()) == []
    assert not mounts_below(elsewhere)
    assert (host.view(layer) / "t/file").read_bytes() == b"right"


async def test_a_layer_that_has_no_tar_split_takes_none_from_those_made_with_it(host: Host) -> None:
    """The tar-splits of an image's layers share a program: thirty of them come, and the one that fails says why."""
    layers = [host.add(LayerTar().add(f"t/{number}", b"x" * number).bytes()) for number in range(30)]
    twice = host.add(LayerTar().add("t/file", b"one").add("./t/file", b"two").bytes())
    with pytest.raises(LayersNotMounted, match="occurs twice"):
        await show(host, *layers, twice, store="classic")
    assert len(list((host.folder / "index").glob("*.split"))) == 30
    await show(host, *layers, store="classic")
    assert [(host.view(one, "splits") / "size").read_text() for one in layers] == [str(size) for size in range(30)]


async def test_a_layer_beyond_eight_gigabytes_is_mounted(host: Host) -> None:
    """Its size is in base 256 in the tar's header. The file is a hole, so that no disk is needed."""
    digits = "9" * 64
    blob = host.blob(digits)
    blob.parent.mkdir(parents=True)
    size_bytes = beyond_eight_gigabytes(blob)
    digest = f"sha256:{digits}"
    await show(host, Layer(digest=digest, diff_id=digest, size_bytes=blob.stat().st_size))
    for path, end in ((host.view_of(digits) / "t-large", 0), (host.view_of(digits, "blobs") / "data", 1024)):
        with path.open("rb") as mounted:
            mounted.seek(-end - 6, 2)
            assert mounted.read(6) == b"at end"
    assert (host.view_of(digits) / "t-large").stat().st_size == size_bytes


@pytest.mark.parametrize(
    "tar",
    [
        pytest.param(b"no tar at all" * 512, id="no-tar"),
        pytest.param(a_tar()[:700], id="cut-off"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_a_crafted_layer_is_refused_and_leaves_nothing(host: Host, tar: bytes) -> None:
    """No mount, no mount point, no index, no record."""
    layer = host.add(tar)
    with pytest.raises(LayersNotMounted):
        await show(host, layer)
    assert not host.view(layer).exists()
    assert list((host.folder / "index").iterdir()) == []
    assert await host.make().shown() == {}


async def test_many_entries_and_odd_names_are_mounted(host: Host) -> None:
    """Twenty thousand files, and names with line breaks, blanks and backslashes. Where limits are lower, they are
    refused with the reason, and nothing is left (of a million under the usual limits: docs/mounted-layers.md).
    """
    made = LayerTar()
    for number in range(20_000):
        made.add(f"t/{number}")
    odd = "t/line\nbreak \\040 é"
    layer = host.add(made.add(odd, b"odd").bytes())
    for limits, why in (
        ({"index_limit_bytes": 1 << 18}, "larger than 262144 bytes"),
        ({"memory_bytes": 1 << 24}, "cannot"),
    ):
        with pytest.raises(LayersNotMounted, match=why):
            await host.make(**limits).show("r-1", [layer], grant="t-1", engine_id="e-1")
        assert list((host.folder / "index").iterdir()) == []
    await show(host, layer)
    assert len(list((host.view(layer) / "t").iterdir())) == 20_001
    assert (host.view(layer) / odd).read_bytes() == b"odd"
