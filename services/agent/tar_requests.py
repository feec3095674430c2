"""Requests for archives: what the engine has, so that an archive need not hold it, and in which form it has that."""

from __future__ import annotations

import msgspec

from events.messages import Failure, LoadOffered, PullRequested, TarRequested
from services.agent.listed_layers import ListedLayers
from services.core.archives.raw_layers import passed_over, raw_of
from services.core.images.image import Store
from services.core.ranges.abilities import layout, left_out
from services.core.ranges.proxies import proxy_note
from services.ports import Engine

_SAME_LAYERS = "all layers are here, only the config is missing"
_OTHER_BLOBS = "the engine has {} layers raw that the registry has compressed: a pull would pass over them"


async def archive_request(
    engine: Engine, listed: ListedLayers, request: PullRequested | LoadOffered, reason: Failure, *, thin: bool
) -> TarRequested:
    """The request for an archive of the layers that are not here, or for a whole one."""
    info = await engine.info()
    source = request.source if isinstance(request, PullRequested) else None
    if source is not None and (note := proxy_note(source.partition("/")[0], info.proxy, info.no_proxy)):
        reason = msgspec.structs.replace(reason, message=f"{reason.message}; {note}")
    known = await listed.known() if thin else []
    present = left_out(info.store, request.diff_ids, [image.diff_ids for image in known])
    return TarRequested(
        transfer_id=request.transfer_id,
        reason=reason,
        diff_ids=present,
        raw=raw_of(present, known),
        layout=layout(info.store),
        thin=thin,
    )


async def config_request(listed: ListedLayers, request: PullRequested) -> TarRequested | None:
    """The request for an archive without any layer, for an image whose layers are all here; None for any other.

    An engine on the classic store knows layers that came by `load` only by what they hold, not by the blobs that a
    manifest names, so it would download them all for a pull.
    """
    if request.source is None or not request.diff_ids:
        return None
    images = await listed.images()
    if not images:
        return None
    store: Store = "classic" if all(image.image_id is not None for image in images) else "containerd"
    known = await listed.known()
    present = left_out(store, request.diff_ids, [image.diff_ids for image in known])
    if not set(present).issuperset(request.diff_ids):
        return None
    reason = Failure(code="same_layers", message=_SAME_LAYERS, retryable=True)
    return TarRequested(
        transfer_id=request.transfer_id,
        reason=reason,
        diff_ids=present,
        raw=raw_of(present, known),
        layout=layout(store),
        thin=True,
    )


async def why_no_pull(listed: ListedLayers, request: PullRequested) -> Failure | None:
    """Why a pull of `request` would end well and leave an image that lacks blobs; None if it would not."""
    if all(layer.digest == layer.diff_id for layer in request.layers):
        return None
    other = passed_over(request.diff_ids, request.layers, await listed.known())
    if not other:
        return None
    return Failure(code="other_blobs", message=_OTHER_BLOBS.format(len(other)), retryable=True)
