"""What an engine on the classic store starts with, written before its first start; a program for the other store."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DIND = Path(__file__).parents[3] / "dind"
BASE, TOP = ("a" * 64, "b" * 64)
CHAIN = hashlib.sha256(f"sha256:{BASE} sha256:{TOP}".encode()).hexdigest()
CONFIG = json.dumps({"rootfs": {"diff_ids": [f"sha256:{BASE}", f"sha256:{TOP}"]}}).encode()
IMAGE = hashlib.sha256(CONFIG).hexdigest()
SEED = {
    "store": "classic",
    "images": [
        {
            "reference": "docker.io/library/web:1",
            "name": "web",
            "tag": "1",
            "image_id": f"sha256:{IMAGE}",
            "repository": "registry:5000/web",
            "config": base64.b64encode(CONFIG).decode(),
            "layers": [
                {"name": BASE, "diff_id": f"sha256:{BASE}", "chain_id": f"sha256:{BASE}", "digest": f"sha256:{BASE}"},
                {
                    "name": TOP,
                    "diff_id": f"sha256:{TOP}",
                    "chain_id": f"sha256:{CHAIN}",
                    "digest": f"sha256:{TOP}",
                    "parent": f"sha256:{BASE}",
                },
            ],
        }
    ],
    "grants": {BASE: "t-1", TOP: "t-1"},
}


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, where everything counts as mounted."""
    monkeypatch.syspath_prepend(str(DIND))
    import seeds

    monkeypatch.setattr(os.path, "ismount", os.path.isdir)
    yield seeds
    del sys.modules["seeds"], sys.modules["classic_layers"], sys.modules["seed_file"]


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Two layers and a seed, as the host shows them."""
    for name in (BASE, TOP):
        (tmp_path / "shown/layers" / name).mkdir(parents=True)
        split = tmp_path / "shown/splits" / name
        split.mkdir(parents=True)
        (split / "size").write_text("5")
        (split / "tar-split.json.gz").write_bytes(b"")
    seed = tmp_path / "shown/seeds/s/seed.json"
    seed.parent.mkdir(parents=True)
    seed.write_text(json.dumps(SEED))
    return tmp_path / "shown"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def seeding(seeds: ModuleType, root: Path, shown: Path, said: list[str], *program: str) -> Any:
    return seeds.Seeding(shown=shown, root=root, program=program, say=said.append)


def test_the_first_start_finds_image_layers_and_names(seeds: ModuleType, root: Path, shown: Path) -> None:
    """As the engine writes them; the agent knows whose the layers are; a second try changes nothing."""
    for _ in range(2):
        assert seeds.place(root, shown) == ["web:1"]
    image = root / "image/overlay2"
    assert json.loads((image / "repositories.json").read_text()) == {
        "Repositories": {"web": {"web:1": f"sha256:{IMAGE}"}}
    }
    assert (image / "imagedb/content/sha256" / IMAGE).read_bytes() == CONFIG
    assert (image / "layerdb/sha256" / CHAIN / "parent").read_text() == f"sha256:{BASE}"
    assert (image / "distribution/diffid-by-digest/sha256" / TOP).read_text() == f"sha256:{TOP}"
    assert json.loads((root / seeds.seed_file.GRANTS).read_text()) == {"grants": SEED["grants"], "open": {}}
    assert (root / "overlay2").stat().st_mode & 0o777 == 0o710


def test_an_image_whose_layer_is_not_mounted_is_left_out(seeds: ModuleType, root: Path, shown: Path) -> None:
    """The engine starts all the same: the image comes later."""
    (shown / "layers" / TOP).rmdir()
    said: list[str] = []
    assert seeding(seeds, root, shown, said).is_over(0.0)
    assert json.loads((root / "image/overlay2/repositories.json").read_text()) == {"Repositories": {}}
    assert any("is not mounted" in line for line in said)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"store": "classic"}', '{"store": "classic", "images": [{}]}'])
def test_a_seed_that_cannot_be_read_keeps_no_engine_down(
    seeds: ModuleType, root: Path, shown: Path, content: str
) -> None:
    """It is said, and the engine starts empty."""
    (shown / "seeds/s/seed.json").write_text(content)
    said: list[str] = []
    assert seeding(seeds, root, shown, said).is_over(0.0)
    assert said
    assert not (root / "image/overlay2/repositories.json").exists()


def test_an_engine_that_ran_before_keeps_what_it_has(seeds: ModuleType, root: Path, shown: Path) -> None:
    """An image that somebody removed does not come back with a restart; a seed of nobody's is none."""
    (root / "containers").mkdir()
    assert seeding(seeds, root, shown, []).is_over(0.0)
    assert not (root / "image").exists()
    assert seeds.seed_file.find(shown / "elsewhere") is None


def test_the_engine_waits_for_the_program_but_not_for_ever(seeds: ModuleType, root: Path, shown: Path) -> None:
    """One that cannot be started is not waited for."""
    said: list[str] = []
    commands = ("sleep", "0.2"), ("sleep", "60"), ("/no/such/program",)
    held, late, none = (seeding(seeds, root, shown, said, *words) for words in commands)
    assert none.is_over(0.0)
    assert said
    assert not held.is_over(0.0)
    deadline = time.monotonic() + 30
    while not held.is_over(0.0):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not late.is_over(0.0)
    assert late.is_over(seeds.PROGRAM_SECONDS)
    assert late._running.wait(30)  # killed
