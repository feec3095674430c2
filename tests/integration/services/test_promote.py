"""Promoting on a real engine."""

import pytest

from events.messages import ImagePromoted
from services.errors import NotFound
from tests.integration.services.conftest import Host


async def test_a_container_becomes_an_image(host: Host, base: str, unique: str) -> None:
    """With its changes as one more layer, and the instructions applied."""
    container = f"container-{unique}"
    host.docker("create", "--name", container, base, "true")
    host.docker("cp", "-", f"{container}:/", given=_tar_of("changed", unique.encode()))
    message = await (await host.resources.promote()).promote_container(
        container, reference=f"promoted-{unique}", changes=['CMD ["changed"]'], push="always"
    )
    assert isinstance(message, ImagePromoted)
    assert message.image_id == host.image_id(f"promoted-{unique}")
    assert message.origin == container
    assert host.docker("inspect", "-f", "{{json .Config.Cmd}}", message.reference) == '["changed"]'
    layers = host.docker("inspect", "-f", "{{len .RootFS.Layers}}", message.reference)
    assert int(layers) == int(host.docker("inspect", "-f", "{{len .RootFS.Layers}}", base)) + 1
    assert await host.said() == [message]
    host.docker("rm", container)


async def test_an_image_gets_another_name(host: Host, base: str, unique: str) -> None:
    """A name that holds a registry's host and port as well."""
    promote = await host.resources.promote()
    message = await promote.promote_image(base, reference=f"registry.example:5000/p/{unique}:1")
    assert message.image_id == host.image_id(base) == host.image_id(f"registry.example:5000/p/{unique}:1")
    assert message.reference == f"registry.example:5000/p/{unique}:1"


async def test_what_is_not_there_is_said(host: Host, unique: str) -> None:
    """Unknown container, unknown image: no event, no tag."""
    service = await host.resources.promote()
    with pytest.raises(NotFound):
        await service.promote_container(f"none-{unique}", reference=f"x-{unique}:1")
    with pytest.raises(NotFound):
        await service.promote_image(f"none-{unique}", reference=f"x-{unique}:1")
    assert host.image_id(f"x-{unique}:1") == ""
    assert await host.said() == []


def _tar_of(name: str, content: bytes) -> bytes:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
