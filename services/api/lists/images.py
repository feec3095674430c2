"""Lists of images: the registry's tags and repositories, and those of the host's engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from services.api.lists.read import Read, ReadContext, Text, stepped
from services.core.images.references import Reference
from services.core.images.registry_statistics import RegistryStatistics
from services.errors import NotFound
from services.queries.read_model.images import ImageDetails
from services.queries.read_model.listing import Filter, Listing, ListPage, ListQuery
from services.queries.read_model.rows import HostImageRow, RegistryImageRow, RepositoryRow
from services.queries.read_model.table import Table

ImageSort = Annotated[
    Literal["name", "size", "unique", "pushed", "ranges"], Meta(description="name, size, unique, pushed or ranges")
]
ImageKind = Annotated[Literal["image", "other", "damaged", ""], Meta(description="image, other or damaged")]
HostState = Annotated[Literal["same", "other", "no", "-", ""], Meta(description="same, other, no or -")]


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A read without query parameters."""


class ImagesQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The registry's tags, of one repository or kind."""

    sort: ImageSort = "name"
    repository: Text = ""
    kind: ImageKind = ""


class RepositoriesQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The registry's repositories."""

    sort: Annotated[Literal["name", "stored", "logical", "tags"], Meta(description="name, stored, logical or tags")] = (
        "name"
    )


class HostImagesQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The host's images; `registry`: those of one state."""

    sort: Annotated[Literal["name", "size"], Meta(description="name or size")] = "name"
    registry: HostState = ""


async def registry_images(
    context: ReadContext, path: Mapping[str, str], query: ImagesQuery
) -> ListPage[RegistryImageRow]:
    mirror = context.mirror
    return mirror.images.listing.page(
        query,
        sort=query.sort,
        state=query.kind,
        keep=Filter((query.repository,), lambda row: row.repository == query.repository) if query.repository else None,
        as_of=context.as_of,
        stale=mirror.scan_is_stale(mirror.registry_scan),
    )


async def registry_image(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> ImageDetails:
    name = path["reference"]
    found = context.mirror.images.details(name) or context.mirror.images.details(str(Reference.parse(name)))
    if found is None:
        raise NotFound(f"the registry has no image {name}", hint="cyroid-images images ls --registry")
    return found


async def repositories(
    context: ReadContext, path: Mapping[str, str], query: RepositoriesQuery
) -> ListPage[RepositoryRow]:
    mirror = context.mirror
    stale = mirror.scan_is_stale(mirror.registry_scan)
    return mirror.images.repositories().page(query, sort=query.sort, as_of=context.as_of, stale=stale)


async def statistics(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> RegistryStatistics:
    return context.mirror.statistics()


async def unreferenced(context: ReadContext, path: Mapping[str, str], query: ListQuery) -> ListPage[RegistryImageRow]:
    """A table of its own, made from the rows that nobody needs."""
    table = Table[RegistryImageRow]({"name": lambda row: row.reference})
    for row in context.mirror.unreferenced():
        table.put(row.reference, row)
    listing = Listing(table=table, text=lambda row: row.reference, sorts={"name": "asc"})
    return listing.page(query, as_of=context.as_of, stale=context.mirror.stale)


async def host_images(context: ReadContext, path: Mapping[str, str], query: HostImagesQuery) -> ListPage[HostImageRow]:
    mirror = context.mirror
    return mirror.host_images.listing.page(
        query,
        sort=query.sort,
        state=query.registry,
        as_of=stepped(mirror.host_scan.ended_at) if mirror.host_scan else None,
        stale=mirror.scan_is_stale(mirror.host_scan),
    )


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/images",
        summary="images of the host's engine, and whether the registry has them",
        function=host_images,
        query=HostImagesQuery,
        answer=ListPage[HostImageRow],
    ),
    Read(
        path="/api/v1/registry/images",
        summary="images in the registry: size, what only they need, and how many ranges have them",
        function=registry_images,
        query=ImagesQuery,
        answer=ListPage[RegistryImageRow],
    ),
    Read(
        path="/api/v1/registry/images/{reference:.+}",
        summary="one image: its layers, who shares them, and the ranges that have it",
        function=registry_image,
        query=NoParameters,
        answer=ImageDetails,
        errors=("not_found", "bad_reference"),
    ),
    Read(
        path="/api/v1/registry/repositories",
        summary="repositories: stored, logical, unique and shared bytes",
        function=repositories,
        query=RepositoriesQuery,
        answer=ListPage[RepositoryRow],
    ),
    Read(
        path="/api/v1/registry/stats",
        summary="number of images, disk space used, disk space saved by sharing layers",
        function=statistics,
        query=NoParameters,
        answer=RegistryStatistics,
    ),
    Read(
        path="/api/v1/registry/unwanted",
        summary="unreferenced images: in no range, desired in none and in no plan",
        function=unreferenced,
        query=ListQuery,
        answer=ListPage[RegistryImageRow],
    ),
)
