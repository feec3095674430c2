"""Lists of builds, imports and promotes that were requested over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from services.api.lists.images import NoParameters
from services.api.lists.read import Read, ReadContext
from services.core.images.ingests import IngestRecord
from services.errors import NotFound
from services.queries.read_model.ingests import IngestRow
from services.queries.read_model.listing import ListPage, ListQuery


class IngestsQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Builds, imports and promotes of one state."""

    sort: Annotated[Literal["started", "name"], Meta(description="started or name")] = "started"
    state: Annotated[
        Literal["receiving", "working", "done", "failed", ""], Meta(description="receiving, working, done or failed")
    ] = ""


async def ingests(context: ReadContext, path: Mapping[str, str], query: IngestsQuery) -> ListPage[IngestRow]:
    return context.mirror.ingests.listing.page(
        query, sort=query.sort, state=query.state, as_of=context.as_of, stale=context.mirror.stale
    )


async def ingest(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> IngestRecord:
    mirror, ident = context.mirror, path["ingest_id"]
    if ident not in mirror.ingests.records:
        await mirror.ingests.look_for(ident)
    record = mirror.ingests.records.get(ident)
    if record is None:
        raise NotFound(f"no build, import or promote {ident} is known")
    return record


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/ingests",
        summary="builds, imports and promotes that were requested over HTTP, the latest first",
        function=ingests,
        query=IngestsQuery,
        answer=ListPage[IngestRow],
    ),
    Read(
        path="/api/v1/ingests/{ingest_id}",
        summary="one build, import or promote: progress, log, its images, or its error",
        function=ingest,
        query=NoParameters,
        answer=IngestRecord,
        errors=("not_found",),
    ),
)
