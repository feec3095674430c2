"""A Docker engine, over its API (20.10 to 28.5, classic and containerd store).

Nothing that the engine *says* makes an image: a pull or load that ends well has only ended, and `inspect` tells what is
there. Leaving one of the context managers closes its connection, which stops the engine's own work.

Time: a plain call gets `answer_seconds`; a transfer may be silent for `stall_seconds`; what an engine does without a
word (writing a save's temporary folder, a build's long step, unpacking, a commit, a pull behind others) gets
`quiet_seconds`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec

from events.task_group import TaskGroup
from services.adapters.engine_errors import engine_error
from services.adapters.engine_http import ByteStream, EngineConnection, LineStream, image_name
from services.adapters.engine_images import Listed, image_of, named
from services.adapters.engine_progress import BuildLog, Limits, Progress
from services.core.images import EngineImage, EngineInfo
from services.errors import BadArchive, BuildFailed, NotFound
from services.ports import Chunks, EngineProgress

_CONTAINERD = "io.containerd.snapshotter"
_INSPECTS_AT_ONCE = 8
_HALF_LOADED = re.compile(r"Error unpacking image (\S+): ")


class DockerEngine:
    """The `Engine` port on a real engine: `async with DockerEngine.open("unix:///var/run/docker.sock") as engine`."""

    def __init__(self, connection: EngineConnection, *, stall_seconds: float, quiet_seconds: float) -> None:
        self._connection = connection
        self._stall_seconds = stall_seconds
        self._quiet_seconds = quiet_seconds
        self._inspected: dict[str, EngineImage] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, answer_seconds: float = 60.0, stall_seconds: float = 60.0, quiet_seconds: float = 1800.0
    ) -> AsyncIterator[Self]:
        """An engine that is away is no error here but in the first call, so that a role may start before it."""
        async with EngineConnection.open(url, answer_seconds=answer_seconds) as connection:
            yield cls(connection, stall_seconds=stall_seconds, quiet_seconds=quiet_seconds)

    @property
    def url(self) -> str:
        return self._connection.url

    async def ping(self) -> None:
        async with self._connection.call("ping") as docker:
            await docker.version()

    async def info(self) -> EngineInfo:
        async with self._connection.call("info") as docker:
            said = await docker.system.info()
            version = await docker.version()
        return EngineInfo(
            engine_id=said["ID"],
            version=said["ServerVersion"],
            api_version=self._connection.docker.api_version.removeprefix("v"),
            store="containerd" if _on_containerd(said) else "classic",
            platform=f"{version['Os']}/{version['Arch']}",
            root=said["DockerRootDir"],
            driver=said["Driver"],
        )

    async def inspect(self, reference: str) -> EngineImage | None:
        name = image_name(reference)
        try:
            async with self._connection.call(f"inspect {reference}") as docker:
                said = await docker.images.inspect(name)
        except NotFound:
            return None
        # A containerd store names images whose content did not all arrive; such a one has no platform and no layers.
        return image_of(said) if said.get("Os") else None

    async def images(self) -> list[EngineImage]:
        """Layers and platform of an id never change, so each image is inspected once."""
        listed: dict[str, Listed] = {}
        async with self._connection.call("list images") as docker:
            for entry in await docker.images.list():
                names = listed.setdefault(entry["Id"], Listed())
                names.tags += entry.get("RepoTags") or ()
                names.digests += entry.get("RepoDigests") or ()
        slots = asyncio.Semaphore(_INSPECTS_AT_ONCE)

        async def inspect(local_id: str) -> EngineImage | None:
            async with slots:
                return await self.inspect(local_id)

        async with TaskGroup() as tasks:
            new = [
                tasks.create_task(inspect(local_id)) for local_id in sorted(listed) if local_id not in self._inspected
            ]
        known = {local_id: image for local_id, image in self._inspected.items() if local_id in listed}
        found = {image.local_id: image for task in new if (image := task.result()) is not None}
        self._inspected = {**known, **found}
        renamed = {local_id: named(image, listed[local_id]) for local_id, image in known.items()}
        return [image for _, image in sorted({**renamed, **found}.items())]

    async def tag(self, source: str, reference: str) -> None:
        repository, tag = _split(image_name(reference))
        async with self._connection.call(f"tag {source} as {reference}") as docker:
            await docker.images.tag(image_name(source), repository, tag=tag)

    async def untag(self, reference: str) -> None:
        name = image_name(reference)
        try:
            async with self._connection.call(f"untag {reference}", seconds=self._quiet_seconds) as docker:
                await docker.images.delete(name)
        except NotFound:
            return

    @asynccontextmanager
    async def pull(self, source: str, *, token: str | None = None) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        name, tag = _split(image_name(source))
        params = {"fromImage": name, "tag": tag} if tag else {"fromImage": name}
        headers = {"X-Registry-Auth": _auth({"registrytoken": token} if token else {})}
        what = f"pull {source}"
        async with self._connection.stream(
            what, "POST", "images/create", params=params, headers=headers, quiet_seconds=self._stall_seconds
        ) as reply:
            # What an engine makes wait for its other pulls is not standing still: how long it may, a caller knows.
            limits = Limits(moving_seconds=self._stall_seconds, queued_seconds=self._quiet_seconds)
            yield Progress(LineStream(reply, what, self.url), reply, limits)

    @asynccontextmanager
    async def push(self, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        repository, tag = _split(image_name(reference))
        what = f"push {reference}"
        async with self._connection.stream(
            what,
            "POST",
            f"images/{repository}/push",
            params={"tag": tag} if tag else {},
            headers={"X-Registry-Auth": _auth({})},
            quiet_seconds=self._stall_seconds,
        ) as reply:
            yield Progress(LineStream(reply, what, self.url), reply)

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        try:
            async with self._connection.stream(
                "load an archive",
                "POST",
                "images/load",
                params={"quiet": "0"},
                body=archive,
                quiet_seconds=self._quiet_seconds,
                otherwise=BadArchive,
            ) as reply:
                yield Progress(LineStream(reply, "load an archive", self.url, otherwise=BadArchive))
        except BadArchive as problem:
            # A containerd store keeps the name of an image it could not unpack for want of layers.
            if half := _HALF_LOADED.search(str(problem)):
                await self.untag(half[1])
            raise

    @asynccontextmanager
    async def save(self, references: Sequence[str]) -> AsyncIterator[Chunks]:
        params = [("names", image_name(reference)) for reference in references]
        what = f"save {', '.join(references)}"
        async with self._connection.stream(
            what, "GET", "images/get", params=params, quiet_seconds=self._quiet_seconds
        ) as reply:
            yield ByteStream(reply)

    @asynccontextmanager
    async def build(
        self,
        context: Chunks,
        *,
        reference: str,
        dockerfile: str = "Dockerfile",
        build_args: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        pull: bool = False,
        no_cache: bool = False,
    ) -> AsyncIterator[AsyncIterator[str]]:
        what = f"build {reference}"
        params = {
            "t": image_name(reference),
            "dockerfile": dockerfile,
            "rm": "1",
            "forcerm": "1",
            "pull": "1" if pull else "0",
            "nocache": "1" if no_cache else "0",
            "buildargs": msgspec.json.encode(build_args or {}).decode(),
            "labels": msgspec.json.encode(labels or {}).decode(),
        }
        if platform:
            params["platform"] = platform
        async with self._connection.stream(
            what,
            "POST",
            "build",
            params=params,
            body=context,
            quiet_seconds=self._quiet_seconds,
            otherwise=BuildFailed,
        ) as reply:
            yield BuildLog(LineStream(reply, what, self.url, otherwise=BuildFailed))

    @asynccontextmanager
    async def import_root(self, archive: Chunks, *, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        repository, tag = _split(image_name(reference))
        what = f"import {reference}"
        before = await self.inspect(reference)
        try:
            async with self._connection.stream(
                what,
                "POST",
                "images/create",
                params={"fromSrc": "-", "repo": repository, "tag": tag or "latest"},
                body=archive,
                quiet_seconds=self._quiet_seconds,
                otherwise=BadArchive,
            ) as reply:
                yield Progress(LineStream(reply, what, self.url, otherwise=BadArchive))
        except BadArchive:
            await self._take_back(reference, before)
            raise

    async def _take_back(self, reference: str, before: EngineImage | None) -> None:
        """28.5 on a containerd store names an import whose archive it then refuses."""
        after = await self.inspect(reference)
        if after is not None and (before is None or before.local_id != after.local_id):
            await self.untag(reference)
            if before is not None:
                await self.tag(before.local_id, reference)

    async def commit(self, container: str, *, reference: str, changes: Sequence[str] = ()) -> str:
        repository, tag = _split(image_name(reference))
        what = f"commit container {container} as {reference}"
        async with self._connection.call(what, seconds=self._quiet_seconds) as docker:
            said = await docker.containers.container(image_name(container)).commit(
                repository=repository, tag=tag, changes=list(changes) or None, pause=True
            )
        local_id = said.get("Id")
        if not isinstance(local_id, str):
            raise engine_error(0, str(said), what, self.url)
        return local_id


def _on_containerd(info: Mapping[str, Any]) -> bool:
    return any(_CONTAINERD in str(value) for _, value in info.get("DriverStatus") or ())


def _split(reference: str) -> tuple[str, str]:
    """Name and tag; a digest stays with the name, for that is how the engine's API takes it."""
    if "@" in reference:
        return reference, ""
    head, colon, tail = reference.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (reference, "latest")


def _auth(credentials: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(credentials)).decode()
