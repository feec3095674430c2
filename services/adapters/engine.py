"""A Docker engine, over its API (20.10 to 28.5, classic and containerd store).

The end of a pull or load is no proof of an image: only `inspect` shows what is
there. Leaving one of the context managers closes its connection, which stops the engine's own work.

Time: a plain call gets `answer_seconds`; a transfer may be silent for `stall_seconds`; what an engine does without
reporting progress (writing a save's temporary folder, a build's long step, unpacking, a commit, a pull behind others)
gets `quiet_seconds`.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Self

import msgspec

from events.task_group import TaskGroup
from services.adapters.engine_build import build
from services.adapters.engine_http import EngineConnection, image_name, is_image_name
from services.adapters.engine_images import ImageInspect, ImageSummary, Listed, image_of, named
from services.adapters.engine_progress import Limits, Progress
from services.adapters.engine_streams import ByteStream, LineStream
from services.core.builds.options import BuildOptions
from services.core.images.image import EngineImage, EngineInfo
from services.core.secrets import without_password
from services.errors import BadArchive, EngineUnavailable, NotFound
from services.ports import Chunks, EngineProgress

_CONTAINERD = "io.containerd.snapshotter"
_INSPECTS_AT_ONCE = 8
_PONG = b"OK"
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
        """Open a client of the engine.

        An engine that is unavailable is an error of the first call, so a role may start before it.
        """
        async with EngineConnection.open(url, answer_seconds=answer_seconds) as connection:
            yield cls(connection, stall_seconds=stall_seconds, quiet_seconds=quiet_seconds)

    @property
    def url(self) -> str:
        return self._connection.url

    async def ping(self) -> None:
        # Not `version`, for which an engine starts runc and its init each time: 9 ms of CPU against 0.3.
        said = await self._connection.ask("ping", object, "GET", "_ping")
        if said != _PONG:
            raise EngineUnavailable(f"ping: what is at {self.url} does not answer as an engine does")

    async def info(self) -> EngineInfo:
        said = await self._connection.ask("info", _Info, "GET", "info")
        version = await self._connection.ask("info", _Version, "GET", "version")
        return EngineInfo(
            engine_id=said.id,
            version=said.server_version,
            api_version=self._connection.docker.api_version.removeprefix("v"),
            store="containerd" if _on_containerd(said) else "classic",
            platform=f"{version.os}/{version.arch}",
            root=said.docker_root_dir,
            driver=said.driver,
            proxy=without_password(said.http_proxy or said.https_proxy),
            no_proxy=said.no_proxy,
            live_restore=said.live_restore_enabled,
            name=said.name,
        )

    async def inspect(self, reference: str) -> EngineImage | None:
        name = image_name(reference)
        try:
            said = await self._connection.ask(f"inspect {reference}", ImageInspect, "GET", f"images/{name}/json")
        except NotFound:
            return None
        # A containerd store names images whose content did not all arrive; such a one has no platform and no layers.
        return image_of(said) if said.os else None

    async def images(self) -> list[EngineImage]:
        """All images of the engine. Layers and platform of an id never change, so each image is inspected once."""
        listed: dict[str, Listed] = {}
        for entry in await self._connection.ask("list images", list[ImageSummary], "GET", "images/json"):
            names = listed.setdefault(entry.id, Listed())
            names.tags += entry.repo_tags
            names.digests += entry.repo_digests
        new = [local_id for local_id in sorted(listed) if local_id not in self._inspected and is_image_name(local_id)]
        inspected = await self._inspect_all(new)
        known = {local_id: image for local_id, image in self._inspected.items() if local_id in listed}
        found = {image.local_id: image for image in inspected if image is not None}
        self._inspected = {**known, **found}
        renamed = {local_id: named(image, listed[local_id]) for local_id, image in known.items()}
        return [image for _, image in sorted({**renamed, **found}.items())]

    async def _inspect_all(self, local_ids: Sequence[str]) -> list[EngineImage | None]:
        """Some at a time; the first error ends the others and comes out as itself."""
        slots = asyncio.Semaphore(_INSPECTS_AT_ONCE)

        async def inspect(local_id: str) -> EngineImage | None:
            async with slots:
                return await self.inspect(local_id)

        try:
            async with TaskGroup() as tasks:
                found = [tasks.create_task(inspect(local_id)) for local_id in local_ids]
        except ExceptionGroup as group:
            failure = group.exceptions[0]
        else:
            return [task.result() for task in found]
        raise failure

    async def tag(self, source: str, reference: str) -> None:
        repository, tag = _split(image_name(reference))
        params = {"repo": repository, "tag": tag} if tag else {"repo": repository}
        path = f"images/{image_name(source)}/tag"
        await self._connection.ask(f"tag {source} as {reference}", object, "POST", path, params=params)

    async def untag(self, reference: str) -> None:
        name = image_name(reference)
        try:
            await self._connection.ask(
                f"untag {reference}", object, "DELETE", f"images/{name}", seconds=self._quiet_seconds
            )
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

    def build(
        self, context: Chunks, *, reference: str, options: BuildOptions | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        return build(
            self._connection,
            context,
            reference=reference,
            options=options or BuildOptions(),
            quiet_seconds=self._quiet_seconds,
        )

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
        params = {"container": image_name(container), "repo": repository, "tag": tag, "pause": "true"}
        if changes:
            params["changes"] = "\n".join(changes)
        said = await self._connection.ask(
            what, _Committed, "POST", "commit", params=params, seconds=self._quiet_seconds
        )
        return said.id


class _Info(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What `GET /info` tells, as far as it is read here."""

    id: str = msgspec.field(name="ID")
    server_version: str
    docker_root_dir: str
    live_restore_enabled: bool = False
    name: str = ""
    driver: str
    driver_status: list[list[object]] = []
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


class _Version(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What `GET /version` tells."""

    os: str
    arch: str


class _Committed(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What `POST /commit` tells."""

    id: str


def _on_containerd(info: _Info) -> bool:
    return any(_CONTAINERD in str(value) for pair in info.driver_status for value in pair)


def _split(reference: str) -> tuple[str, str]:
    """Name and tag; a digest stays with the name, for that is how the engine's API takes it."""
    if "@" in reference:
        return reference, ""
    head, colon, tail = reference.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (reference, "latest")


def _auth(credentials: Mapping[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(credentials)).decode()
