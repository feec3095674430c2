"""`/api/v1/images/build|import|promote`: make images on the host's engine, from uploads, references and containers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from events.messages import Push
from services.api.route import Call, NoBody, NoQuery, Reply, Route
from services.commands.ingest import ArchiveCommand, BuildCommand, IngestCommand, PromoteCommand, PullCommand
from services.core.builds.options import BuildOptions
from services.core.images.ingests import IngestRecord
from services.core.images.references import Reference
from services.errors import BadInput

ReferenceText = Annotated[str, Meta(min_length=1, max_length=1024, description="an image reference")]
PushChoice = Annotated[Push, Meta(description="auto, always, ask or never")]
Text = Annotated[str, Meta(max_length=1024, description="text of at most 1024 characters")]
Pair = Annotated[str, Meta(max_length=4096, description="NAME=VALUE")]
#: Uploads are bounded by the settings of what takes them; this is the most that any may have.
UPLOAD_LIMIT_BYTES = 1024**4
ARCHIVE_TYPES = (
    "application/x-tar",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "application/zstd",
    "application/x-xz",
    "application/x-bzip2",
)
_ERRORS = (
    "bad_reference",
    "engine_unavailable",
    "transfer_failed",
    "no_space",
    "ingests_busy",
    "interrupted",
    "unavailable",
)


class BuildQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of a build, by the names of `docker buildx build`."""

    reference: ReferenceText
    push: PushChoice = "auto"
    dockerfile: Text = "Dockerfile"
    target: Text = ""
    platform: Text = ""
    network: Annotated[Literal["default", "none"], Meta(description="default or none")] = "default"
    builder: Annotated[Literal["auto", "buildkit", "classic"], Meta(description="auto, buildkit or classic")] = "auto"
    build_arg: list[Pair] = []
    label: list[Pair] = []
    cache_from: list[ReferenceText] = []
    pull: bool = False
    no_cache: bool = False


class ArchiveQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reference` names the archive's one image; `origin` is the archive's own name, for people."""

    reference: Text = ""
    origin: Annotated[str, Meta(max_length=200, description="text of at most 200 characters")] = "upload"
    push: PushChoice = "auto"


class ImportBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An image that the host's engine pulls."""

    reference: ReferenceText
    push: Push = "auto"


class PromoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reference` becomes the name of a container's changes, or of an image: one of the two is given.

    `changes`: Dockerfile instructions to apply to a container's image.
    """

    reference: ReferenceText
    container: Annotated[str, Meta(max_length=256)] = ""
    image: Annotated[str, Meta(max_length=1024)] = ""
    changes: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=100)] = ()
    push: Push = "auto"


async def _build(call: Call[BuildQuery, NoBody]) -> Reply[IngestRecord]:
    query = call.query
    options = BuildOptions(
        dockerfile=query.dockerfile or "Dockerfile",
        target=query.target,
        build_args=pairs(query.build_arg, "build_arg"),
        labels=pairs(query.label, "label"),
        cache_from=tuple(query.cache_from),
        platform=query.platform or None,
        network=query.network,
        pull=query.pull,
        no_cache=query.no_cache,
        builder=query.builder,
    )
    return await _started(call, BuildCommand(reference=query.reference, options=options, push=query.push))


async def _import_archive(call: Call[ArchiveQuery, NoBody]) -> Reply[IngestRecord]:
    query = call.query
    return await _started(call, ArchiveCommand(reference=query.reference, origin=query.origin, push=query.push))


async def _import(call: Call[NoQuery, ImportBody]) -> Reply[IngestRecord]:
    return await _started(call, PullCommand(reference=str(Reference.parse(call.body.reference)), push=call.body.push))


async def _promote(call: Call[NoQuery, PromoteBody]) -> Reply[IngestRecord]:
    body = call.body
    if bool(body.container) is bool(body.image):
        raise BadInput("name a `container` or an `image`: one of the two")
    if body.image and body.changes:
        raise BadInput("`changes` are applied to a container's image; an image only gets another name")
    command = PromoteCommand(
        reference=body.reference,
        origin=body.container or body.image,
        is_image=bool(body.image),
        changes=body.changes,
        push=body.push,
    )
    return await _started(call, command)


async def _started(call: Call[Any, Any], command: IngestCommand) -> Reply[IngestRecord]:
    upload = call.upload
    record = await call.context.ingest.start(
        command,
        content=upload.chunks if upload else None,
        total_bytes=upload.total_bytes if upload else 0,
        actor=call.actor,
        ingest_id=call.keyed_id(),
    )
    call.context.reads.mirror.wake()
    return Reply(record, location=f"/api/v1/ingests/{record.id}")


def pairs(texts: list[str], name: str) -> dict[str, str]:
    """`NAME=VALUE` each. Raises BadInput."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise BadInput(f"{name} must be NAME=VALUE")
        found[key] = value
    return found


def _route(path: str, summary: str, handler: Any, *, query: Any = NoQuery, body: Any = NoBody, **more: Any) -> Any:
    errors = (*_ERRORS, *more.pop("errors", ()))
    return Route(
        method="POST",
        path=f"/api/v1/images/{path}",
        summary=summary,
        handler=handler,
        access="operator",
        query=query,
        body=body,
        answer=IngestRecord,
        status=202,
        errors=errors,
        idempotent_by_key=True,
        **more,
    )


ROUTES: tuple[Route[Any, Any, Any], ...] = (
    _route(
        "build",
        "build an image from an uploaded context, a tar: `reference`; may have `push`, and a build's options",
        _build,
        query=BuildQuery,
        upload=ARCHIVE_TYPES,
        body_limit_bytes=UPLOAD_LIMIT_BYTES,
        errors=("bad_archive", "build_failed", "needs_buildkit", "no_dockerfile"),
    ),
    _route(
        "import/archive",
        "import an uploaded image archive, or a CYROID blueprint zip; may have `reference`, `origin`, `push`",
        _import_archive,
        query=ArchiveQuery,
        upload=(*ARCHIVE_TYPES, "application/zip"),
        body_limit_bytes=UPLOAD_LIMIT_BYTES,
        errors=("bad_archive", "no_name", "many_names", "not_found", "registry_unavailable"),
    ),
    _route(
        "import",
        "import an image that the host's engine pulls: `reference`; may have `push`",
        _import,
        body=ImportBody,
        errors=("not_found", "registry_unavailable", "not_an_image"),
    ),
    _route(
        "promote",
        "make an image of a `container`, or name an `image`: `reference`; may have `changes`, `push`",
        _promote,
        body=PromoteBody,
        errors=("not_found",),
    ),
)
