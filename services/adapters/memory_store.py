"""Image store of the fake engine: content-addressed layers, images, names, as a real store keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.adapters.memory_archives import StoredImage, manifest_of
from services.adapters.placed_layers import PlacedLayers
from services.core.images.image import EngineImage, Store
from services.core.images.manifests import Manifest, sha256
from services.core.images.references import Reference
from services.errors import BadReference, CyroidError, NotFound, WrongContent


@dataclass(slots=True)
class MemoryStore:
    """`layers` by diff ID; `images` by what the engine calls them; `names` and `digests` by reference.

    `mounted` has the diff IDs of those layers that stand on folders of the host, by folder name; `placed` is the
    agent's record of them, which lies with the engine's data. `raw` has what an archive said of an image's raw layers.
    """

    kind: Store
    layers: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, StoredImage] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    mounted: dict[str, str] = field(default_factory=dict)
    placed: PlacedLayers = field(default_factory=PlacedLayers)
    raw: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add_layer(self, content: bytes, *, wanted: str | None = None, kind: type[CyroidError] = WrongContent) -> str:
        """Keep a layer; raises `kind` if it is not the wanted one. Returns its diff ID."""
        diff_id = sha256(content)
        if wanted not in {None, diff_id}:
            raise kind(f"the layer {wanted} came as {diff_id}; the engine keeps none of it")
        self.layers[diff_id] = content
        return diff_id

    def add_image(self, config: bytes, name: str | None, *, manifest: Manifest | None = None) -> str:
        """Keep an image whose layers are there. Returns the local id."""
        image = StoredImage(config, manifest or manifest_of(config, self.layers))
        local_id = image.image_id if self.kind == "classic" else image.manifest.digest
        self.images.setdefault(local_id, image)
        if name is not None:
            self.names[name] = local_id
        return local_id

    def find(self, name: str) -> str:
        """The local id of a reference, `repository@digest`, local id or its short form. Raises NotFound."""
        for local_id in self.images:
            if name == local_id or (len(name) >= 12 and local_id.removeprefix("sha256:").startswith(name)):
                return local_id
        try:
            reference = str(Reference.parse(name))
        except BadReference:
            reference = name
        found = self.names.get(reference) or self.digests.get(reference)
        if found is None:
            raise NotFound(f"No such image: {name}")
        return found

    def describe(self, local_id: str) -> EngineImage:
        """The image as `inspect` reports it."""
        image = self.images[local_id]
        return EngineImage(
            local_id=local_id,
            image_id=image.image_id if self.kind == "classic" else None,
            diff_ids=image.diff_ids,
            references=tuple(sorted(name for name, one in self.names.items() if one == local_id)),
            repo_digests=tuple(sorted(name for name, one in self.digests.items() if one == local_id)),
            size_bytes=sum(len(self.layers[one]) for one in image.diff_ids),
            platform=image.parsed.platform,
            raw_layers=self.raw.get(local_id, ()),
        )

    def remove_name(self, name: str) -> None:
        """The image goes with its last name, and each layer with its last image.

        As in the engine, a repository's digests go with the last tag of that repository, and an image without a name is
        removed by its local id.
        """
        if name in self.images and name not in {*self.names.values(), *self.digests.values()}:
            self._remove(name)
            return
        reference = Reference.parse(name)
        table = self.digests if reference.digest else self.names
        local_id = table.pop(str(reference), None)
        if local_id is None:
            return
        mine = [name for name, one in self.names.items() if one == local_id]
        if not reference.digest and not any(Reference.parse(one).name == reference.name for one in mine):
            for digest in [one for one, owner in self.digests.items() if owner == local_id]:
                if Reference.parse(digest).name == reference.name:
                    del self.digests[digest]
        if local_id not in {*self.names.values(), *self.digests.values()}:
            self._remove(local_id)

    def _remove(self, local_id: str) -> None:
        del self.images[local_id]
        self.raw.pop(local_id, None)
        self.drop_unused(self.layers)

    def drop_unused(self, diff_ids: Iterable[str]) -> None:
        """Remove those of these layers that no image uses."""
        used = {one for image in self.images.values() for one in image.diff_ids}
        gone = set(diff_ids) - used
        self.layers = {one: content for one, content in self.layers.items() if one not in gone}
        self.mounted = {name: one for name, one in self.mounted.items() if one not in gone}

    def knows(self, diff_ids: Sequence[str]) -> bool:
        """Whether the top layer of this chain need not be sent: a classic store knows a layer by its whole chain."""
        if self.kind == "containerd":
            return diff_ids[-1] in self.layers
        return any(list(image.diff_ids[: len(diff_ids)]) == list(diff_ids) for image in self.images.values())
