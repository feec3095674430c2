"""dind/containerd_seed.py: a seed put into a store that answers as containerd does; on the real one in tests/e2e."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from services.adapters import containerd_messages as m
from tests.unit.dind.test_grpc_client import Bytes

DIND = Path(__file__).parents[3] / "dind"
BASE, TOP = (f"sha256:{letter * 64}" for letter in "ab")
CHAIN, CONFIG, MANIFEST = (f"sha256:{letter * 64}" for letter in "cde")
NAME = "docker.io/library/web:1"
LAYERS = [
    {"name": "a" * 64, "diff_id": BASE, "chain_id": BASE, "digest": BASE, "size_bytes": 3},
    {"name": "b" * 64, "diff_id": TOP, "chain_id": CHAIN, "digest": TOP, "size_bytes": 3, "parent": BASE},
]
IMAGE = {
    **{"reference": NAME, "image_id": CONFIG, "manifest_type": "t/m", "manifest_digest": MANIFEST, "layers": LAYERS},
    **{"manifest": base64.b64encode(b"manifest").decode(), "config": base64.b64encode(b"config").decode()},
}
SEED = {"store": "containerd", "images": [IMAGE], "grants": {"a" * 64: "t-1"}}


@pytest.fixture
def containerd_seed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, where everything counts as mounted."""
    monkeypatch.syspath_prepend(str(DIND))
    import containerd_seed

    monkeypatch.setattr(os.path, "ismount", os.path.isdir)
    yield containerd_seed
    for name in ("containerd_seed", "grpc_client", "seed_file"):
        del sys.modules[name]


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Two layers and a seed, as the host shows them."""
    for digits in ("a" * 64, "b" * 64):
        (tmp_path / "shown/layers" / digits).mkdir(parents=True)
        (tmp_path / "shown/blobs" / digits).mkdir(parents=True)
        (tmp_path / "shown/blobs" / digits / "data").write_bytes(b"tar")
    write_seed(tmp_path / "shown", SEED)
    return tmp_path / "shown"


def write_seed(shown: Path, seed: object) -> None:
    file = shown / "seeds/s/seed.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(seed))


class FakeContainerd:
    """Snapshots, blobs and leases by name. `refuses` is a method that fails."""

    def __init__(self, root: Path, refuses: str = "") -> None:
        self._root, self.refuses = root, refuses
        self.snapshots: dict[str, Path] = {}
        self.leases: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.labels: dict[str, dict[str, str]] = {}
        self.names: list[bytes] = []

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        server = Server([self], codec=Bytes())
        await server.start(path=str(path))
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    def __mapping__(self) -> dict[str, Handler]:
        calls = {
            "leases": ("Leases/Create", "Leases/Delete"),
            "snapshots": ("Snapshots/Stat", "Snapshots/Prepare", "Snapshots/Remove", "Snapshots/Commit"),
            "content": ("Content/Write",),
            "images": ("Images/Create",),
        }
        names = [f"/containerd.services.{service}.v1.{call}" for service, some in calls.items() for call in some]
        return {name: Handler(self._handler(name), Cardinality.UNARY_UNARY, bytes, bytes) for name in names}

    def _handler(self, name: str) -> Any:
        method = name.rpartition("/")[2].lower()

        async def handle(stream: Stream[bytes, bytes]) -> None:
            asked = await stream.recv_message() or b""
            assert stream.metadata is not None
            assert (stream.metadata["containerd-namespace"], bool(self.leases) or "Leases" in name) == ("moby", True)
            if method == self.refuses:
                raise GRPCError(Status.INTERNAL)
            kind = "lease" if "Leases" in name else "image" if "Images" in name else ""
            await stream.send_message(getattr(self, f"_{kind}{method}")(asked))

        return handle

    def _leasecreate(self, asked: bytes) -> bytes:
        self.leases.add(m.CreateLeaseRequest.loads(asked).id)
        return b""

    def _leasedelete(self, asked: bytes) -> bytes:
        self.leases.discard(m.DeleteLeaseRequest.loads(asked).id)
        return b""

    def _stat(self, asked: bytes) -> bytes:
        if m.MountsRequest.loads(asked).key not in self.snapshots:
            raise GRPCError(Status.NOT_FOUND)
        return b""

    def _prepare(self, asked: bytes) -> bytes:
        request = m.PrepareRequest.loads(asked)
        if request.key in self.snapshots:
            raise GRPCError(Status.ALREADY_EXISTS)
        assert request.parent in {"", *self.snapshots}
        folder = self._root / f"snapshots/{len(list(self._root.glob('snapshots/*')))}/fs"
        folder.mkdir(parents=True)
        self.snapshots[request.key] = folder
        bound = m.Mount("bind", str(folder), ["rw"])
        stacked = m.Mount("overlay", "overlay", ["index=off", f"upperdir={folder}", "lowerdir=/x/snapshots/9/fs"])
        return bytes(m.MountsAnswer([stacked if request.parent else bound]))

    def _remove(self, asked: bytes) -> bytes:
        del self.snapshots[m.MountsRequest.loads(asked).key]
        return b""

    def _commit(self, asked: bytes) -> bytes:
        request = m.CommitRequest.loads(asked)
        self.snapshots[request.name] = self.snapshots.pop(request.key)
        return b""

    def _write(self, asked: bytes) -> bytes:
        request = m.WriteRequest.loads(asked)
        if request.expected in self.blobs:
            raise GRPCError(Status.ALREADY_EXISTS)
        file = self._root / "containerd/daemon/io.containerd.content.v1.content/blobs/sha256" / request.expected[7:]
        content = request.data or file.read_bytes()
        assert (len(content), request.total) == (request.total, request.offset + len(request.data))
        self.blobs[request.expected] = content
        self.labels[request.expected] = {label.key: label.value for label in request.labels}
        return b""

    def _imagecreate(self, asked: bytes) -> bytes:
        if asked in self.names:
            raise GRPCError(Status.ALREADY_EXISTS)
        self.names.append(asked)
        return b""


async def test_an_image_is_there_with_layers_content_and_name(
    containerd_seed: ModuleType, tmp_path: Path, shown: Path
) -> None:
    """Also when it was cut off at any call and is done again; the agent knows whose the layers are."""
    store = FakeContainerd(tmp_path)
    for refused in ("prepare", "commit", "write", ""):
        store.refuses = refused
        async with store.serving(tmp_path / "s"):
            problems = await asyncio.to_thread(containerd_seed.run, shown=shown, root=tmp_path, socket=tmp_path / "s")
        assert bool(problems) == bool(refused)
    assert {name: folder.readlink() for name, folder in store.snapshots.items()} == {
        BASE: shown / "layers" / ("a" * 64),
        CHAIN: shown / "layers" / ("b" * 64),
    }
    assert store.blobs == {BASE: b"tar", TOP: b"tar", CONFIG: b"config", MANIFEST: b"manifest"}
    assert store.labels == {
        **{digest: {} for digest in (BASE, TOP)},
        CONFIG: {"containerd.io/gc.ref.snapshot.overlayfs": CHAIN},
        MANIFEST: {
            "containerd.io/gc.ref.content.config": CONFIG,
            "containerd.io/gc.ref.content.l.0": BASE,
            "containerd.io/gc.ref.content.l.1": TOP,
        },
    }
    assert len(store.names) == 1
    assert all(text.encode() in store.names[0] for text in (NAME, MANIFEST, "t/m"))
    assert store.leases == set()
    assert json.loads((tmp_path / "cyroid-mounted-layers.json").read_text()) == {"grants": SEED["grants"], "open": {}}


async def test_an_image_whose_layer_is_not_as_it_should_be_is_left_out(
    containerd_seed: ModuleType, tmp_path: Path, shown: Path
) -> None:
    """The others come all the same."""
    other = {**IMAGE, "reference": "docker.io/library/other:1", "layers": [{**LAYERS[0], "size_bytes": 9}]}
    write_seed(shown, {**SEED, "images": [other, IMAGE]})
    store = FakeContainerd(tmp_path)
    async with store.serving(tmp_path / "s"):
        problems = await asyncio.to_thread(containerd_seed.run, shown=shown, root=tmp_path, socket=tmp_path / "s")
    assert [one.partition(": ")[0] for one in problems] == ["docker.io/library/other:1"]
    assert len(store.names) == 1


async def test_a_compressed_layer_is_its_blob_and_says_what_is_in_it(
    containerd_seed: ModuleType, tmp_path: Path, shown: Path
) -> None:
    """As a pull says it, or somebody would have to read all of it for its diff ID."""
    packed = f"sha256:{'f' * 64}"
    write_seed(shown, {**SEED, "images": [{**IMAGE, "layers": [{**LAYERS[0], "digest": packed, "size_bytes": 4}]}]})
    folder = shown / "blobs" / f"{'a' * 64}.{'f' * 64}"
    folder.mkdir()
    (folder / "data").write_bytes(b"gzip")
    store = FakeContainerd(tmp_path)
    async with store.serving(tmp_path / "s"):
        assert await asyncio.to_thread(containerd_seed.run, shown=shown, root=tmp_path, socket=tmp_path / "s") == []
    assert (store.blobs[packed], store.labels[packed]) == (b"gzip", {"containerd.io/uncompressed": BASE})


@pytest.mark.parametrize("seed", [None, [], {"store": "containerd"}, {"store": "containerd", "images": [{}]}, 7])
async def test_a_seed_that_cannot_be_read_is_said_and_nothing_more(
    containerd_seed: ModuleType, tmp_path: Path, shown: Path, capsys: pytest.CaptureFixture[str], seed: object
) -> None:
    """The engine starts empty."""
    write_seed(shown, seed)
    words = ["--shown", str(shown), "--data-root", str(tmp_path), "--socket", str(tmp_path / "s")]
    async with FakeContainerd(tmp_path).serving(tmp_path / "s"):
        assert await asyncio.to_thread(containerd_seed.main, words) == 1
    assert "the engine is not seeded" in capsys.readouterr().err


def test_nothing_is_waited_for_where_there_is_no_seed_for_this_store(
    containerd_seed: ModuleType, tmp_path: Path, shown: Path
) -> None:
    """Neither is containerd there."""
    write_seed(shown, {**SEED, "store": "classic"})
    assert containerd_seed.run(shown=shown, root=tmp_path, socket=tmp_path / "s") == []
    assert containerd_seed.run(shown=tmp_path, root=tmp_path, socket=tmp_path / "s") == []
