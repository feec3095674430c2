"""Lists of deployments and plans, and one of each in detail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from events.messages import Failure
from services.api.lists.images import NoParameters
from services.api.lists.read import Read, ReadContext, Text
from services.core.images.references import Reference
from services.queries.deployments import DeploymentView, one_deployment
from services.queries.plans import PlanView, one_plan
from services.queries.read_model.listing import Filter, ListPage, ListQuery
from services.queries.read_model.rows import DeploymentRow, PlanRow, TransferRow

State = Annotated[
    Literal["requested", "running", "succeeded", "failed", "cancelled", ""],
    Meta(description="requested, running, succeeded, failed or cancelled"),
]
PlanStateParameter = Annotated[
    Literal["announced", "under way", "done", "incomplete", ""],
    Meta(description="announced, under way, done or incomplete"),
]


class DeploymentsQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deployments of one state, range or image."""

    sort: Annotated[
        Literal["requested", "range", "state", "priority"], Meta(description="requested, range, state or priority")
    ] = "requested"
    state: State = ""
    range_id: Text = ""
    image: Text = ""


class PlansQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plans of one state."""

    sort: Annotated[Literal["announced", "name"], Meta(description="announced or name")] = "announced"
    state: PlanStateParameter = ""


class DeploymentDetails(DeploymentView, frozen=True, kw_only=True):
    """A deployment with the transfers of its images that are under way."""

    transfers: list[TransferRow]


async def deployments(
    context: ReadContext, path: Mapping[str, str], query: DeploymentsQuery
) -> ListPage[DeploymentRow]:
    known = context.mirror.deployments
    image = str(Reference.parse(query.image)) if query.image else ""

    def keep(row: DeploymentRow) -> bool:
        if query.range_id and row.range_id != query.range_id:
            return False
        return not image or image in known.images.get(row.deployment_id, ())

    page = known.listing.page(
        query,
        sort=query.sort,
        state=query.state,
        keep=Filter((query.range_id, image), keep) if query.range_id or image else None,
        as_of=context.as_of,
        stale=context.mirror.stale,
    )
    items = [
        msgspec.structs.replace(row, queue_position=known.places.get(row.deployment_id))
        if row.deployment_id in known.places
        else row
        for row in page.items
    ]
    return msgspec.structs.replace(page, items=items)


async def deployment(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> DeploymentDetails:
    view = await one_deployment(context.bus, context.streams, path["deployment_id"])
    rows = (context.mirror.transfers.of(image.transfer_id) for image in view.images if image.transfer_id)
    return DeploymentDetails(**msgspec.structs.asdict(view), transfers=[row for row in rows if row is not None])


async def plans(context: ReadContext, path: Mapping[str, str], query: PlansQuery) -> ListPage[PlanRow]:
    return context.mirror.plans.listing.page(
        query, sort=query.sort, state=query.state, as_of=context.as_of, stale=context.mirror.stale
    )


async def plan(context: ReadContext, path: Mapping[str, str], query: NoParameters) -> PlanView:
    known = context.mirror.plans.table.rows.get(path["plan_id"])
    pushes: dict[str, Failure | None] = {}
    if known is not None:
        for _, row in context.mirror.pushes.table.walk("asked"):
            if row.ended_at is not None and row.ended_at >= known.announced_at:
                pushes[row.reference] = row.error
    return await one_plan(context.bus, context.streams, path["plan_id"], pushes=pushes if known else None)


READS: tuple[Read[Any, Any], ...] = (
    Read(
        path="/api/v1/deployments",
        summary="deployments, the latest first: `state`, `range_id`, `image`",
        function=deployments,
        query=DeploymentsQuery,
        answer=ListPage[DeploymentRow],
        errors=("bad_reference",),
    ),
    Read(
        path="/api/v1/deployments/{deployment_id}",
        summary="state and progress of one deployment, image by image",
        function=deployment,
        query=NoParameters,
        answer=DeploymentDetails,
        errors=("not_found",),
    ),
    Read(
        path="/api/v1/plans",
        summary="plans, the latest first",
        function=plans,
        query=PlansQuery,
        answer=ListPage[PlanRow],
    ),
    Read(
        path="/api/v1/plans/{plan_id}",
        summary="progress of one plan: which images are in the registry, and in which ranges",
        function=plan,
        query=NoParameters,
        answer=PlanView,
        errors=("not_found",),
    ),
)
