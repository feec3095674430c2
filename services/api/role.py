"""The role `api`: serves HTTP, consumes no stream, publishes the commands that callers request.

Builds, imports and promotes run in its process (services/ingest/jobs.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from events.lease import Bus
from events.streams import Streams
from events.subscription import Subscription
from events.task_group import TaskGroup
from services.api.authentication import check_listen
from services.api.events.feed import Feed
from services.api.lists.read import ReadContext
from services.api.login import LoginSettings, open_authenticator
from services.api.route import ApiContext, DoctorFinding
from services.api.server import application
from services.commands.ingest import IngestJobs, NoIngest
from services.errors import BadInput
from services.ports import Engine, Registry
from services.queries.disk_use import measure_often
from services.queries.read_model.mirror import Mirror
from services.queries.settings import SettingView
from services.runtime.http_server import listening
from services.runtime.telemetry import get_logger

log = get_logger(role="api")
GOODBYE_SECONDS = 5.0


class ApiRole:
    """The HTTP API on `listen` (`host:port`). Raises BadInput where it would be open to a network."""

    name = "api"

    def __init__(
        self,
        *,
        listen: str,
        bus: Bus,
        streams: Streams,
        registry: Registry,
        engine: Engine,
        source: str,
        login: LoginSettings | None = None,
        host_names: Collection[str] = (),
        frame_ancestors: str = "",
        engine_networks: str = "",
        doctor: Callable[[], Awaitable[Sequence[DoctorFinding]]],
        storage: str = "",
        settings: Sequence[SettingView] = (),
        ingest: IngestJobs | None = None,
    ) -> None:
        self._listen = listen
        self._login = login or LoginSettings()
        self._host_names = host_names
        self._frame_ancestors = frame_ancestors
        check_listen(self._login.auth, listen)
        self._storage = storage
        self._mirror = Mirror(bus=bus, streams=streams)
        self._feed = Feed(bus=bus, streams=streams, mirror=self._mirror)
        self._context = ApiContext(
            bus=bus,
            streams=streams,
            registry=registry,
            engine=engine,
            reads=ReadContext(mirror=self._mirror, bus=bus, streams=streams, recent=self._feed),
            feed=self._feed,
            source=source,
            engine_networks=engine_networks,
            settings=settings,
            doctor=doctor,
            ingest=ingest or NoIngest(),
        )

    def subscriptions(self) -> Sequence[Subscription]:
        return ()

    async def run(self) -> None:
        """Until cancelled. Raises BadInput when the address is taken."""
        host, _, port = self._listen.rpartition(":")
        try:
            async with (
                open_authenticator(self._login) as authenticator,
                listening(
                    application(
                        self._context,
                        authenticator=authenticator,
                        auth=self._login.auth,
                        host_names=self._host_names,
                        frame_ancestors=self._frame_ancestors,
                    ),
                    host.strip("[]"),
                    int(port),
                    goodbye_seconds=GOODBYE_SECONDS,
                ) as address,
            ):
                log.info("listening", address=f"{address[0]}:{address[1]}")
                async with TaskGroup() as tasks:
                    tasks.create_task(self._mirror.run())
                    tasks.create_task(self._feed.run())
                    tasks.create_task(self._context.ingest.run())
                    tasks.create_task(measure_often(self._storage, self._mirror.measured))
        except (OSError, OverflowError) as problem:
            reason = getattr(problem, "strerror", None) or problem
            raise BadInput(f"cannot listen at {self._listen}: {reason}; set CYROID_API_LISTEN") from problem
