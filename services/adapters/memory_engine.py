"""Fake engine in memory, for tests and for the run without Docker. Passes `tests/contract/test_engine.py`.

Its layers are content-addressed, its images are named by what they hold, it pulls from a `Registry` and verifies, and
it loads and saves the archives a real engine does, thin ones too. A test injects failures through `faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec

from services.adapters import memory_transfers
from services.adapters.memory_archives import files, tar_of, write_archive
from services.adapters.memory_build import Built, new_config, run_dockerfile
from services.adapters.memory_store import MemoryStore
from services.core.builds.options import BuildOptions
from services.core.images.image import EngineImage, EngineInfo, Store
from services.core.images.references import Reference
from services.errors import (
    BadArchive,
    BadInput,
    BadReference,
    BuildFailed,
    CyroidError,
    EngineUnavailable,
    NotFound,
    RegistryUnavailable,
    Stalled,
)
from services.ports import Chunks, EngineProgress, Registry

Operation = Literal["pull", "push", "load", "save", "build", "import_root", "commit"]
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A failure of one operation after so many bytes: it waits for `until`, then raises an error or is silent for
    ever.
    """

    after_bytes: int = 0
    until: asyncio.Event | None = None
    error: CyroidError | None = None
    stall: bool = False


class MemoryEngine:
    """`registries` are what it reaches, by address.

    For tests: `away` refuses every call; `faults` holds a fault for the next run of an operation; `working` lists the
    operations under way, `counts` how often each was begun.
    """

    def __init__(
        self,
        *,
        registries: Mapping[str, Registry] | None = None,
        store: Store = "classic",
        version: str = "26.1.5",
        engine_id: str = "memory",
        stall_seconds: float = 60.0,
        url: str = "memory://engine",
    ) -> None:
        self.url = url
        self.registries = dict(registries or {})
        self.store = MemoryStore(store)
        self.version = version
        self.engine_id = engine_id
        self.stall_seconds = stall_seconds
        self.name = ""
        self.away = False
        self.faults: dict[Operation, Fault] = {}
        self.working: list[Operation] = []
        self.counts: dict[Operation, int] = {}
        self._containers: dict[str, tuple[str, dict[str, bytes]]] = {}

    def add_image(self, reference: str, layers: Sequence[bytes], **extra: object) -> EngineImage:
        """Put an image in, as a build would; `extra` goes into its config."""
        diff_ids = [self.store.add_layer(layer) for layer in layers]
        config = msgspec.json.encode({**new_config(None, Built(), diff_ids, {}), **extra})
        return self.store.describe(self.store.add_image(config, str(Reference.parse(reference))))

    def add_container(self, name: str, reference: str, changed: Mapping[str, bytes]) -> None:
        """A container made from an image, with files changed in it."""
        self._containers[name] = (self.store.find(reference), dict(changed))

    def config(self, reference: str) -> bytes:
        """An image's config JSON, byte for byte."""
        return self.store.images[self.store.find(reference)].config

    async def ping(self) -> None:
        self._answer("ping")

    async def info(self) -> EngineInfo:
        self._answer("info")
        return EngineInfo(
            engine_id=self.engine_id,
            version=self.version,
            api_version="1.45",
            store=self.store.kind,
            platform="linux/amd64",
            root="/var/lib/docker",
            name=self.name,
        )

    async def inspect(self, reference: str) -> EngineImage | None:
        self._answer(f"inspect {reference}")
        try:
            return self.store.describe(self.store.find(reference))
        except NotFound:
            return None

    async def images(self) -> list[EngineImage]:
        self._answer("list images")
        return [self.store.describe(local_id) for local_id in sorted(self.store.images)]

    async def tag(self, source: str, reference: str) -> None:
        self._answer(f"tag {source}")
        name = str(Reference.parse(reference))
        self.store.names[name] = self._find(source, f"tag {source}")

    async def untag(self, reference: str) -> None:
        self._answer(f"untag {reference}")
        name = str(Reference.parse(reference)) if reference not in self.store.images else reference
        local_id = self.store.names.get(name)
        others = [one for one, owner in self.store.names.items() if owner == local_id and one != name]
        users = [one for one, (made_from, _) in self._containers.items() if made_from == local_id]
        if local_id is not None and users and not others:
            raise BadInput(f"untag {reference}: conflict: container {users[0]} is using its referenced image")
        self.store.remove_name(reference)

    @asynccontextmanager
    async def pull(self, source: str, *, token: str | None = None) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        with self._operation("pull", f"pull {source}"):
            parsed = Reference.parse(source)
            reads_zstd = int(self.version.split(".")[0]) >= 23
            yield memory_transfers.pull(
                self.store, self._registry(parsed), parsed, self._through("pull"), reads_zstd=reads_zstd
            )

    @asynccontextmanager
    async def push(self, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        with self._operation("push", f"push {reference}"):
            parsed = Reference.parse(reference)
            self._find(reference, f"push {reference}")
            yield memory_transfers.push(self.store, self._registry(parsed), parsed, self._through("push"))

    @asynccontextmanager
    async def load(self, archive: Chunks) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        with self._operation("load", "load an archive"):
            yield memory_transfers.load(self.store, archive, self._through("load"))

    @asynccontextmanager
    async def save(self, references: Sequence[str]) -> AsyncIterator[Chunks]:
        what = f"save {', '.join(references)}"
        with self._operation("save", what):
            found = [(self.store.images[self._find(one, what)], _names(one)) for one in references]
            layout = "docker" if int(self.version.split(".")[0]) < 25 else "oci"
            yield self._through("save")(write_archive(found, self.store.layers, layout=layout))

    @asynccontextmanager
    async def build(
        self, context: Chunks, *, reference: str, options: BuildOptions | None = None
    ) -> AsyncIterator[AsyncIterator[str]]:
        with self._operation("build", f"build {reference}"):
            yield self._build(context, str(Reference.parse(reference)), options or BuildOptions())

    @asynccontextmanager
    async def import_root(self, archive: Chunks, *, reference: str) -> AsyncIterator[AsyncIterator[EngineProgress]]:
        with self._operation("import_root", f"import {reference}"):
            yield self._import(archive, str(Reference.parse(reference)))

    async def commit(self, container: str, *, reference: str, changes: Sequence[str] = ()) -> str:
        with self._operation("commit", f"commit {container}"):
            if container not in self._containers:
                raise NotFound(f"commit {container}: the engine at {self.url} says: No such container: {container}")
            base, changed = self._containers[container]
            built = Built(base=base, layers=[tar_of(changed)], settings=list(changes))
            return self._finish(built, str(Reference.parse(reference)), {})

    async def _build(self, context: Chunks, reference: str, options: BuildOptions) -> AsyncIterator[str]:
        content = b"".join([chunk async for chunk in context])
        passed = b"".join([chunk async for chunk in self._through("build")(content)])
        try:
            built = run_dockerfile(files(passed), options)
            for line in built.log:
                yield line
            self._finish(built, reference, options.labels)
        except (BadArchive, NotFound) as problem:
            raise BuildFailed(f"build {reference}: {problem}") from problem
        yield f"Successfully tagged {reference}"

    async def _import(self, archive: Chunks, reference: str) -> AsyncIterator[EngineProgress]:
        content = b"".join([chunk async for chunk in archive])
        passed = b"".join([chunk async for chunk in self._through("import_root")(content)])
        files(passed)
        yield EngineProgress(status=self._finish(Built(base="scratch", layers=[passed]), reference, {}))

    def _finish(self, built: Built, reference: str, labels: Mapping[str, str]) -> str:
        base = None if built.base == "scratch" else msgspec.json.decode(self.config(built.base))
        added = [self.store.add_layer(layer) for layer in built.layers]
        return self.store.add_image(msgspec.json.encode(new_config(base, built, added, labels)), reference)

    def _answer(self, what: str) -> None:
        if self.away:
            raise EngineUnavailable(f"{what}: cannot talk to the engine at {self.url}")

    def _find(self, name: str, what: str) -> str:
        try:
            return self.store.find(name)
        except NotFound as problem:
            raise NotFound(f"{what}: the engine at {self.url} says: {problem}") from problem

    def _registry(self, reference: Reference) -> Registry:
        registry = self.registries.get(reference.domain)
        if registry is None:
            raise RegistryUnavailable(f"{reference}: the engine at {self.url} reaches no registry {reference.domain}")
        return registry

    @contextmanager
    def _operation(self, name: Operation, what: str) -> Iterator[None]:
        self._answer(what)
        self.counts[name] = self.counts.get(name, 0) + 1
        self.working.append(name)
        try:
            yield
        finally:
            self.working.remove(name)

    def _through(self, name: Operation) -> memory_transfers.Through:
        return lambda content: self._faulty(name, content)

    async def _faulty(self, name: Operation, content: bytes) -> AsyncIterator[bytes]:
        fault = self.faults.get(name)
        before = len(content) if fault is None else fault.after_bytes
        for start in range(0, min(before, len(content)), _CHUNK_BYTES):
            yield content[start : min(start + _CHUNK_BYTES, before)]
        if fault is None:
            return
        self.faults.pop(name, None)  # two runs at the same time may have met the same one
        if fault.until is not None:
            await fault.until.wait()
        if fault.stall:
            await asyncio.sleep(self.stall_seconds)
            raise Stalled(f"{name}: nothing moved to or from the engine at {self.url} for {self.stall_seconds:g} s")
        if fault.error is not None:
            raise fault.error
        self._answer(name)
        yield content[before:]


def _names(reference: str) -> list[str]:
    try:
        return [Reference.parse(reference).familiar]
    except BadReference:
        return []
