"""Transfers: one request, one answer; which path an image takes to the engine, and what is reported when one fails.

mounted layers     → placed in the engine's store before the pull, which then fetches manifest and config alone
not placed         → the pull fetches the layers too, and the answer says why
only a new config  → image.tar_requested for an archive without a layer; the pull, if that does not work
other blobs here   → image.tar_requested: the pull would pass over layers whose blobs are not here
failed pull        → image.tar_requested, with the layers that the engine has
refused thin tar   → image.tar_requested for a whole one
broken-off tar     → image.tar_requested again; the deployer counts
no room            → image.failed: no other way needs less
damaged layer      → image.failed: no other archive of it can be made
no turn            → image.failed, when the tar server let it wait, or did not answer, for too long
engine away        → raised: the entry is tried again when it is back
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import replace

import msgspec

from events.messages import (
    Arrival,
    Failure,
    ImageFailed,
    ImageReady,
    LoadOffered,
    PullRequested,
    TarRequested,
)
from services.agent.archive_download import OfferRefused, TarServerBusy, TarServerUnavailable, fetch_in_turn
from services.agent.inspection import Wanted, give_name, inspect_content
from services.agent.listed_layers import ListedLayers
from services.agent.load import load
from services.agent.loaded_content import LoadedContent
from services.agent.mounted_layers import Placement, placement
from services.agent.progress import Report, TransferReporter
from services.agent.pull import Patience, pull
from services.agent.stall_watch import Activity
from services.agent.tar_requests import archive_request, config_request, why_no_pull
from services.errors import BadArchive, CyroidError, EngineUnavailable, NoSpace, WrongContent
from services.ports import Engine, LayerPlacer
from services.runtime import metrics
from services.runtime.telemetry import get_logger

Request = PullRequested | LoadOffered
Answer = ImageReady | ImageFailed | TarRequested


#: A config alone that is not there by then is not waited for: the pull needs nobody's turn.
CONFIG_SECONDS = 5.0
#: Requests whose config alone was asked for, to be pulled if it does not come. A run that forgot one asks for a tar.
_TO_PULL_LIMIT = 1000


class Transfers:
    """Carries out requests on one engine."""

    def __init__(self, *, engine: Engine, range_id: str, patience: Patience, placer: LayerPlacer | None = None) -> None:
        self._engine = engine
        self._placer = placer
        self._range_id = range_id
        self._patience = patience
        self._coming: set[str] = set()
        self._to_pull: OrderedDict[str, PullRequested] = OrderedDict()
        self._activity = Activity()
        self._loaded = LoadedContent(engine)
        self._layers = ListedLayers(engine)
        self._log = get_logger(role="agent", range=range_id)

    async def run(self, request: Request, report: Report) -> Answer:
        """The answer to `request`. Raises EngineUnavailable, and what another try with the same request may heal."""
        started = time.monotonic()
        kind = "pull" if isinstance(request, PullRequested) else "load"
        answer: Answer | None = None
        reporter = TransferReporter(request, self._range_id, report)
        try:
            async with placement(self._placer, request) as layers:
                async with self._placer.using() if self._placer is not None else nullcontext():
                    answer = await self._answer(request, reporter, layers)
                if isinstance(answer, ImageReady):
                    self._layers.note(request.diff_ids, _brought_raw(request))
                if isinstance(answer, ImageReady) and layers.why_not is not None:
                    answer = msgspec.structs.replace(answer, not_mounted=layers.why_not)
            if layers.why_not is not None:
                self._log.warning(
                    "not mounted", image=request.reference, transfer=request.transfer_id, why=layers.why_not.message
                )
            return answer
        finally:
            # An interrupted one counts as failed too: if it is taken up again, that try's reports follow.
            reporter.ended(well=isinstance(answer, ImageReady))
            self._note(request, kind, answer, reporter.done_bytes, time.monotonic() - started)

    async def declined(self, request: Request) -> None:
        """Nothing is done for this request: what the host shows for it counts as unused."""
        async with placement(self._placer, request):
            pass

    async def _answer(self, request: Request, reporter: TransferReporter, layers: Placement) -> Answer:
        started = time.monotonic()
        wanted = _wanted(request)
        here = await inspect_content(self._engine, wanted) or await self._loaded.find(wanted)
        if here is not None:
            how: Arrival = "present" if wanted.reference in here.references else "retagged"
            await give_name(self._engine, wanted, here)
            return _ready(request, how, 0, len(wanted.diff_ids), started)
        if isinstance(request, PullRequested):
            await layers.place()
            asked = None if layers.placed else await self._ask_for_config(request)
            return asked or await self._pull(request, wanted, reporter, started, layers)
        pull = self._to_pull.get(request.transfer_id)
        if pull is None:
            return await self._load(request, wanted, reporter, started)
        answer = await self._load_or_pull(request, pull, reporter, started)
        self._to_pull.pop(request.transfer_id, None)
        return answer

    async def _ask_for_config(self, request: PullRequested) -> TarRequested | None:
        """For an image whose layers are all here; the pull is remembered, in case that does not come."""
        asked = await config_request(self._layers, request)
        if asked is not None:
            self._to_pull[request.transfer_id] = request
            while len(self._to_pull) > _TO_PULL_LIMIT:
                self._to_pull.popitem(last=False)
        return asked

    async def _load_or_pull(
        self, request: LoadOffered, pull: PullRequested, reporter: TransferReporter, started: float
    ) -> Answer:
        """Load what was asked for in place of a pull; if that does not work, the pull is as good as ever."""
        try:
            async with asyncio.timeout(CONFIG_SECONDS):
                answer = await self._load(request, _wanted(request), reporter, started)
        except TarServerUnavailable as problem:
            why = str(problem)
        except TimeoutError:
            why = f"the config alone was not loaded within {CONFIG_SECONDS:g} s"
        else:
            if isinstance(answer, ImageReady):
                return answer
            why = (answer.reason if isinstance(answer, TarRequested) else answer.error).message
        self._log.info("pulling after all", image=request.reference, transfer=request.transfer_id, why=why)
        return await self._pull(pull, _wanted(pull), reporter, started)

    async def _pull(
        self,
        request: PullRequested,
        wanted: Wanted,
        reporter: TransferReporter,
        started: float,
        layers: Placement | None = None,
    ) -> Answer:
        if wanted.source is None:
            nowhere = Failure(code="no_source", message="the registry cannot be pulled from now", retryable=True)
            return await self._ask_for_tar(request, nowhere)
        placed = layers is not None and layers.placed
        if not placed and (why_not := await why_no_pull(self._layers, request)):
            return await self._ask_for_tar(request, why_not)
        try:
            progress = await pull(
                self._engine,
                wanted,
                activity=self._activity,
                patience=self._patience,
                report=reporter.pulling,
                coming=self._coming,
            )
        except EngineUnavailable:
            raise
        except NoSpace as problem:
            return ImageFailed(transfer_id=request.transfer_id, error=problem.failure())
        except CyroidError as problem:
            return await self._ask_for_tar(request, problem.failure())
        how: Arrival = "pulled"
        if layers is not None and layers.placed:
            if progress.received_bytes:
                layers.failed(f"the engine pulled {progress.received_bytes} bytes all the same")
            else:
                how = "mounted"
        return _ready(request, how, progress.received_bytes, progress.layers_reused, started)

    async def _load(self, request: LoadOffered, wanted: Wanted, reporter: TransferReporter, started: float) -> Answer:
        held = set(request.held)
        thin = not held.issuperset(request.diff_ids)
        try:
            async with fetch_in_turn(
                request.url,
                request.token,
                patience=self._patience,
                waiting=reporter.waiting,
            ) as fetched:
                total = fetched.total_bytes or request.total_bytes
                received = await load(
                    self._engine,
                    wanted,
                    fetched.chunks,
                    activity=self._activity,
                    patience=self._patience,
                    report=lambda done, ended: reporter.loading(done, total, ended),
                )
        except EngineUnavailable:
            raise
        except (BadArchive, WrongContent) as problem:
            self._layers.forget()
            if not thin:
                return ImageFailed(transfer_id=request.transfer_id, error=problem.failure())
            return await self._ask_for_tar(request, problem.failure(), thin=False)
        except OfferRefused as problem:
            return await self._ask_for_tar(request, problem.failure())
        except CyroidError as problem:
            if problem.final or isinstance(problem, NoSpace | TarServerUnavailable | TarServerBusy):
                return ImageFailed(transfer_id=request.transfer_id, error=problem.failure())
            return await self._ask_for_tar(request, problem.failure())
        await self._loaded.note(wanted)
        reused = sum(diff_id not in held for diff_id in request.diff_ids)
        return _ready(request, "loaded", received, reused, started)

    async def _ask_for_tar(self, request: Request, reason: Failure, *, thin: bool = True) -> TarRequested:
        return await archive_request(self._engine, self._layers, request, reason, thin=thin)

    def _note(self, request: Request, kind: str, answer: Answer | None, came: int, seconds: float) -> None:
        """One line and the numbers, however it ended; `came` is how many bytes came of one that did not end well."""
        about = {"image": request.reference, "transfer": request.transfer_id, "seconds": round(seconds, 3)}
        if isinstance(answer, ImageReady):
            metrics.transfers.labels(kind, answer.how, "done").inc()
            metrics.transferred_bytes.labels(kind, answer.how).inc(answer.received_bytes)
            metrics.transfer_seconds.labels(kind, answer.how).observe(seconds)
            reused = f"{answer.layers_reused}/{answer.layers_total}"
            self._log.info(kind, path=answer.how, bytes=answer.received_bytes, layers_reused=reused, **about)
        elif answer is not None:
            error = answer.reason if isinstance(answer, TarRequested) else answer.error
            metrics.transfers.labels(
                kind, "none", "tar_requested" if isinstance(answer, TarRequested) else "failed"
            ).inc()
            self._log.warning(
                kind,
                path="none",
                bytes=came,
                said=type(answer).__name__,
                code=error.code,
                why=error.message,
                **about,
            )
        else:
            metrics.transfers.labels(kind, "none", "interrupted").inc()
            self._log.info(kind, path="none", bytes=came, said="interrupted", **about)


def _wanted(request: Request) -> Wanted:
    wanted = Wanted(reference=request.reference, image_id=request.image_id, diff_ids=request.diff_ids)
    if isinstance(request, PullRequested):
        return replace(wanted, source=request.source, layers=request.layers, token=request.registry_token)
    return wanted


def _brought_raw(request: Request) -> tuple[str, ...]:
    """Layers that an archive in OCI layout brought: they are never compressed there."""
    return request.held if isinstance(request, LoadOffered) and request.layout == "oci" else ()


def _ready(request: Request, how: Arrival, received: int, reused: int, started: float) -> ImageReady:
    return ImageReady(
        transfer_id=request.transfer_id,
        image_id=request.image_id,
        how=how,
        received_bytes=received,
        layers_reused=reused,
        layers_total=len(request.diff_ids),
        seconds=round(time.monotonic() - started, 3),
    )
