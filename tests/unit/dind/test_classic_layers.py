"""Records of mounted layers in the data of an engine on the classic store, written while it does not run."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DIND = Path(__file__).parents[3] / "dind"
BASE, TOP = ("a" * 64, "b" * 64)
CHAIN = hashlib.sha256(f"sha256:{BASE} sha256:{TOP}".encode()).hexdigest()


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, where everything counts as mounted."""
    monkeypatch.syspath_prepend(str(DIND))
    import classic_layers

    monkeypatch.setattr(os.path, "ismount", os.path.isdir)
    yield classic_layers
    del sys.modules["classic_layers"]


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Two layers as the host shows them."""
    for name in (BASE, TOP):
        (tmp_path / "shown/layers" / name).mkdir(parents=True)
        split = tmp_path / "shown/splits" / name
        split.mkdir(parents=True)
        (split / "size").write_text("5")
        (split / "tar-split.json.gz").write_bytes(b"")
    return tmp_path / "shown"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


WANTED = (
    {"name": BASE, "diff_id": f"sha256:{BASE}", "chain_id": f"sha256:{BASE}"},
    {"name": TOP, "diff_id": f"sha256:{TOP}", "chain_id": f"sha256:{CHAIN}", "parent": f"sha256:{BASE}"},
)


def record(root: Path, chain: str) -> dict[str, str]:
    folder = root / "image/overlay2/layerdb/sha256" / chain
    return {path.name: path.read_text() for path in folder.iterdir()}


def image(root: Path) -> Path:
    config = root / "image/overlay2/imagedb/content/sha256/c"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"rootfs": {"diff_ids": [f"sha256:{BASE}", f"sha256:{TOP}"]}}))
    return config


def test_records_are_those_that_an_engine_writes(layers: ModuleType, root: Path, shown: Path) -> None:
    """Layer, folder and the short link through which an overlay names it; the files stay where they are."""
    assert layers.place(root, shown, WANTED) == 2
    described = record(root, CHAIN)
    assert described == {
        "diff": f"sha256:{TOP}",
        "size": "5",
        "cache-id": CHAIN,
        "parent": f"sha256:{BASE}",
        "tar-split.json.gz": "",
    }
    base, top = root / "overlay2" / BASE, root / "overlay2" / CHAIN
    link = (base / "link").read_text()
    assert (top / "lower").read_text() == f"l/{link}"
    assert not (base / "lower").exists()
    assert (root / "overlay2/l" / link).resolve() == shown / "layers" / BASE
    assert (top / "diff").readlink() == shown / "layers" / TOP
    assert set(layers.links(root)) == {shown / "layers" / BASE, shown / "layers" / TOP}


def test_placing_again_changes_nothing(layers: ModuleType, root: Path, shown: Path) -> None:
    """A layer that the engine has under a folder of its own stays; the new one stands on that."""
    own = root / "overlay2/own"
    own.mkdir(parents=True)
    (own / "link").write_text("OWN")
    (own / "diff").mkdir()
    described = root / "image/overlay2/layerdb/sha256" / BASE
    described.mkdir(parents=True)
    (described / "diff").write_text(f"sha256:{BASE}")
    (described / "cache-id").write_text("own")
    assert layers.place(root, shown, WANTED) == 1
    assert (root / "overlay2" / CHAIN / "lower").read_text() == "l/OWN"
    assert layers.place(root, shown, WANTED) == 0


@pytest.mark.parametrize("damage", ["cache-id", "link", "overlay"])
def test_what_a_power_cut_left_without_content_is_made_anew(
    layers: ModuleType, root: Path, shown: Path, damage: str
) -> None:
    """The engine would drop such a layer at its start, or fail at each container."""
    layers.place(root, shown, WANTED)
    if damage == "cache-id":
        (root / "image/overlay2/layerdb/sha256" / CHAIN / "cache-id").write_text("")
    elif damage == "link":
        (root / "overlay2" / CHAIN / "link").write_text("")
    else:
        (root / "overlay2" / CHAIN / "diff").unlink()
    assert layers.place(root, shown, WANTED) == 1
    assert record(root, CHAIN)["cache-id"] == CHAIN


def test_a_folder_that_is_not_mounted_is_refused(layers: ModuleType, root: Path, shown: Path) -> None:
    """Before anything is written: an empty folder would be a layer without files."""
    (shown / "layers" / TOP).rmdir()
    with pytest.raises(ValueError, match="not mounted"):
        layers.place(root, shown, WANTED)
    assert not root.exists()


def test_layers_without_an_image_are_swept(layers: ModuleType, root: Path, shown: Path) -> None:
    """Of a transfer that was cut off. What an image, a container or the build cache stands on stays."""
    layers.place(root, shown, WANTED)
    config = image(root)
    assert layers.sweep(root, shown) == 0
    config.unlink()
    container = root / "image/overlay2/layerdb/mounts/c/parent"
    container.parent.mkdir(parents=True)
    container.write_text(f"sha256:{BASE}")
    assert layers.sweep(root, shown) == 1
    assert record(root, BASE)
    container.unlink()
    cache = root / "buildkit/snapshots.db"
    cache.parent.mkdir()
    cache.write_bytes(f"\0sha256:{BASE}\0".encode())
    assert layers.sweep(root, shown) == 0
    cache.unlink()
    assert layers.sweep(root, shown) == 1
    assert [path.name for path in (root / "overlay2").iterdir()] == ["l"]
    assert not list((root / "overlay2/l").iterdir())


def test_layers_of_the_engine_itself_are_never_swept(layers: ModuleType, root: Path, shown: Path) -> None:
    """Whether an image uses them or not is the engine's affair."""
    described = root / "image/overlay2/layerdb/sha256" / BASE
    described.mkdir(parents=True)
    (described / "cache-id").write_text("own")
    (root / "overlay2/own/diff").mkdir(parents=True)
    assert layers.sweep(root, shown) == 0
    assert described.exists()


def test_what_is_not_mounted_is_named(layers: ModuleType, root: Path, shown: Path) -> None:
    """The engine's start waits for it."""
    layers.place(root, shown, WANTED)
    assert layers.missing(root) == []
    (shown / "layers" / BASE).rmdir()
    assert layers.missing(root) == [shown / "layers" / BASE]
