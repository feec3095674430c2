"""Build, import and promote by the HTTP API."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner, Result

from services.adapters.memory_archives import tar_of
from services.cli import main
from tests.unit.services.api.site import open_service
from tests.unit.services.api.test_ingests import saved
from tests.unit.services.core.archives.test_zip_stream import zipped


async def test_images_are_made_by_an_api_elsewhere(tmp_path: Path) -> None:
    """Contexts and archives are read here; what the engine says is told, and an error has its exit status."""
    archive, blueprint, context = tmp_path / "a.tar", tmp_path / "b.zip", tmp_path / "context"
    web = await saved("web:1")
    archive.write_bytes(web)
    manifest = {"format": "cyroid-blueprint", "version": 1, "images": [{"file": "w.tar", "reference": "shop:1"}]}
    blueprint.write_bytes(zipped({"manifest.json": json.dumps(manifest).encode(), "w.tar": web}))
    context.mkdir()
    (context / "Dockerfile").write_text("FROM web:1\nARG NAME\nRUN echo $NAME\n")

    async with open_service() as service:
        url = str(service.client.make_url("/"))

        async def images(*words: str) -> Result:
            arguments = ["images", words[0], "--api", url, *words[1:]]
            return await asyncio.to_thread(CliRunner().invoke, main, arguments, catch_exceptions=False)

        done = await images("import", str(archive), str(blueprint), "--push", "never")
        assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("sha256:")] == [
            "docker.io/library/web:1",
            "docker.io/library/shop:1",
        ]
        built = await images("build", str(context), "-t", "made:1", "--build-arg", "NAME=x=y")
        assert built.exit_code == 0, built.output
        assert "RUN echo x=y" in built.stderr
        assert "docker.io/library/made:1" in built.stdout
        service.world.engine.add_container("shop", "web:1", {"changed": b"yes"})
        promoted = await images("promote", "shop", "made:2", "--json")
        assert json.loads(promoted.stdout.splitlines()[-1])["items"][0]["reference"] == "docker.io/library/made:2"
        renamed = await images("promote", "--image", "web:1", "made:3")
        assert renamed.exit_code == 0
        (context / "Dockerfile").write_bytes(b"FROM web:1\nRUN false\n")
        failed = await images("build", str(context), "-t", "made:4")
        assert (failed.exit_code, "non-zero code" in failed.stderr) == (2, True)
        archive.write_bytes(tar_of({"nothing": b"x"}))
        failed = await images("import", str(archive), "nothing-there:1")
        assert failed.exit_code >= 2
        refused = await images("build", str(context), "-t", "made:4", "--network", "host")
        assert (refused.exit_code, "without --api" in refused.stderr) == (2, True)
