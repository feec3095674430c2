"""`bundle create` and `bundle load`, over fakes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from events.messages import ImagePushed
from services.adapters.memory_registry import MemoryRegistry
from services.core.images.manifests import OCI_CONFIG, OCI_LAYER, Descriptor, Manifest, sha256
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS, chunks

LAYER = b"x" * 5000


async def filled(registry: MemoryRegistry) -> None:
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(LAYER)]}}
    content = json.dumps(config).encode()
    for blob in (content, LAYER):
        await registry.put_blob("library/web", sha256(blob), len(blob), chunks(blob))
    named = Descriptor(media_type=OCI_CONFIG, digest=sha256(content), size=len(content))
    layer = Descriptor(media_type=OCI_LAYER, digest=sha256(LAYER), size=len(LAYER))
    await registry.put_manifest("library/web", "1", Manifest.write(named, (layer,)))


def test_a_bundle_is_written_loaded_and_announced(shell: Shell, tmp_path: Path) -> None:
    """The list makes the next bundle smaller; a load publishes `image.pushed`, so that deployments know."""
    asyncio.run(filled(shell.world.registry))
    listed = str(tmp_path / "first.json")
    created = shell.run("bundle", "create", "web:1", "--list", listed)
    assert created.exit_code == 0, created.stderr
    file = tmp_path / "web.tar"
    file.write_bytes(created.stdout_bytes)
    again = shell.run("bundle", "create", "web:1", "--since", listed)
    assert len(again.stdout_bytes) < len(created.stdout_bytes) - len(LAYER)
    assert "docker.io/library/web:1: 0 B sent" in shell.run("bundle", "load", str(file)).output

    async def announced() -> list[str]:
        entries = shell.world.bus.tail(["test:images"], after="0", follow=False)
        messages = [entry.envelope.message async for entry in entries if entry.envelope]
        return [one.reference for one in messages if isinstance(one, ImagePushed)]

    assert asyncio.run(announced()) == ["docker.io/library/web:1"]
    assert STREAMS.images.endswith("images")


def test_what_is_no_bundle_is_bad_input(shell: Shell, tmp_path: Path) -> None:
    """One line, and the status of bad input."""
    (tmp_path / "x").write_bytes(b"no tar")
    result = shell.run("bundle", "load", str(tmp_path / "x"))
    assert result.exit_code == 2
    assert "is no tar" in result.output
