"""Routes, and what their handlers stand on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from aiohttp import web

from events.lease import Bus
from events.streams import Streams
from services import asking, deployment_book, forgetting, inventory, plan_book, unwanted
from services.api import health
from services.api.answers import accepted, answer
from services.api.problems import problems, read_body
from services.errors import BadInput
from services.ports import Engine, Registry
from services.statistics import Statistics
from services.verifying import Verifier

BODY_LIMIT_BYTES = 1024 * 1024
DEFAULT_ITEMS = 50
MOST_ITEMS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The handlers and their ports."""

    bus: Bus
    streams: Streams
    registry: Registry
    engine: Engine
    statistics: Statistics
    source: str

    def app(self) -> web.Application:
        """The application, ready to be served."""
        app = web.Application(middlewares=[problems], client_max_size=BODY_LIMIT_BYTES)
        pings: dict[str, health.Ping] = {
            "redis": self._ping_bus,
            "registry": self.registry.ping,
            "engine": self.engine.ping,
        }
        app[health.PINGS] = pings
        app[health.BUS] = self.bus
        app[health.STREAMS] = self.streams
        app.add_routes(
            [
                web.get("/livez", health.livez),
                web.get("/readyz", health.readyz),
                web.get("/metrics", health.exposition),
                web.get("/api/v1/registry/stats", self.stats),
                web.get("/api/v1/registry/images", self.registry_images),
                web.get("/api/v1/registry/unwanted", self.unwanted_in_registry),
                web.post("/api/v1/registry/push", self.push),
                web.get("/api/v1/images", self.host_images),
                web.get("/api/v1/ranges", self.ranges),
                web.delete("/api/v1/ranges/{range_id}", self.forget_range),
                web.get("/api/v1/ranges/{range_id}/verification", self.verification),
                web.get("/api/v1/unwanted", self.unwanted),
                web.get("/api/v1/ranges/{range_id}/unwanted", self.unwanted_in_range),
                web.delete("/api/v1/ranges/{range_id}/images/{reference:.+}", self.forget_image),
                web.get("/api/v1/deployments", self.deployments),
                web.post("/api/v1/deployments", self.deploy),
                web.get("/api/v1/deployments/{deployment_id}", self.deployment),
                web.post("/api/v1/deployments/{deployment_id}/cancel", self.cancel),
                web.post("/api/v1/deployments/{deployment_id}/retry", self.retry),
                web.get("/api/v1/plans", self.plans),
                web.post("/api/v1/plans", self.plan),
                web.get("/api/v1/plans/{plan_id}", self.one_plan),
            ]
        )
        return app

    async def _ping_bus(self) -> None:
        await self.bus.load(f"{self.streams.prefix}:ping")

    async def stats(self, request: web.Request) -> web.Response:
        return answer(await self.statistics.get())

    async def registry_images(self, request: web.Request) -> web.Response:
        items = await inventory.registry_images(self.registry)
        return answer({"items": items, "next": None})

    async def host_images(self, request: web.Request) -> web.Response:
        return answer({"items": await inventory.host_images(self.engine, self.registry), "next": None})

    async def push(self, request: web.Request) -> web.Response:
        body: PushBody = await read_body(request, PushBody)
        asked = await asking.ask_for_push(
            body.reference, engine=self.engine, speaker=self.bus, streams=self.streams, source=self.source
        )
        return accepted("/api/v1/registry/images", asked)

    async def ranges(self, request: web.Request) -> web.Response:
        return answer({"items": await inventory.known_ranges(self.bus, self.streams), "next": None})

    async def forget_range(self, request: web.Request) -> web.Response:
        """204. While its agent is alive that takes `?force=true`."""
        force = _flag(request, "force")
        await forgetting.forget_range(self.bus, self.streams, request.match_info["range_id"], force=force)
        return web.Response(status=204)

    async def forget_image(self, request: web.Request) -> web.Response:
        """204: the range is not meant to have it any more. Its engine keeps it until somebody removes it there."""
        range_id, reference = request.match_info["range_id"], request.match_info["reference"]
        await forgetting.forget_images(self.bus, self.streams, range_id, [reference])
        return web.Response(status=204)

    async def verification(self, request: web.Request) -> web.Response:
        """What `cyroid-images verify` says by what the range's agent said last; `?image=` for single ones.

        A range's engine itself is asked by the command line alone: the API calls no address that a caller names.
        """

        async def engine() -> Engine:
            return self.engine

        async def registry() -> Registry:
            return self.registry

        verifier = Verifier(speaker=self.bus, streams=self.streams, engine=engine, registry=registry)
        range_id = request.match_info["range_id"]
        verified = await verifier.verify(range_id, request.query.getall("image", []))
        return answer(verified.told(range_id))

    async def unwanted(self, request: web.Request) -> web.Response:
        """The ranges that have something that nobody wants."""
        reports = await unwanted.in_ranges(self.bus, self.streams)
        return answer({"items": [report.told() for report in reports if report.images], "next": None})

    async def unwanted_in_range(self, request: web.Request) -> web.Response:
        report = await unwanted.in_range(self.bus, self.streams, request.match_info["range_id"])
        return answer(report.told())

    async def unwanted_in_registry(self, request: web.Request) -> web.Response:
        return answer({"items": await unwanted.in_registry(self.bus, self.streams), "next": None})

    async def deployments(self, request: web.Request) -> web.Response:
        last = _limit(request)
        return answer({"items": await deployment_book.latest_deployments(self.bus, self.streams, last), "next": None})

    async def deploy(self, request: web.Request) -> web.Response:
        """202. With an `Idempotency-Key`, asking again asks for the same deployment, not for another one."""
        body: DeployBody = await read_body(request, DeployBody)
        key = request.headers.get("Idempotency-Key")
        message = asking.deployment(
            body.range_id,
            body.images,
            deployment_id=body.deployment_id or (id_of(key) if key else None),
            platform=body.platform,
            engine_url=body.engine_url,
            priority=body.priority,
        )
        await asking.ask_deployer(message, speaker=self.bus, streams=self.streams, source=self.source)
        return accepted(f"/api/v1/deployments/{message.deployment_id}", {"deployment_id": message.deployment_id})

    async def deployment(self, request: web.Request) -> web.Response:
        return answer(await self._known(request.match_info["deployment_id"]))

    async def cancel(self, request: web.Request) -> web.Response:
        row = await self._known(request.match_info["deployment_id"])
        message = asking.cancelling(str(row["deployment_id"]), "asked for over HTTP")
        await asking.ask_deployer(message, speaker=self.bus, streams=self.streams, source=self.source)
        return accepted(f"/api/v1/deployments/{message.deployment_id}", {"deployment_id": message.deployment_id})

    async def retry(self, request: web.Request) -> web.Response:
        row = await self._known(request.match_info["deployment_id"])
        message = asking.retrying(str(row["deployment_id"]))
        await asking.ask_deployer(message, speaker=self.bus, streams=self.streams, source=self.source)
        return accepted(f"/api/v1/deployments/{message.deployment_id}", {"deployment_id": message.deployment_id})

    async def plans(self, request: web.Request) -> web.Response:
        return answer({"items": await plan_book.latest_plans(self.bus, self.streams, _limit(request)), "next": None})

    async def plan(self, request: web.Request) -> web.Response:
        """202. With an `Idempotency-Key`, asking again announces the same plan, also to ranges that came up since."""
        body: PlanBody = await read_body(request, PlanBody)
        key = request.headers.get("Idempotency-Key")
        plan_id = body.plan_id or (id_of(key) if key else None)
        message = asking.planning(body.images, body.range_ids, plan_id=plan_id, platform=body.platform)
        await asking.ask_deployer(message, speaker=self.bus, streams=self.streams, source=self.source)
        return accepted(f"/api/v1/plans/{message.plan_id}", {"plan_id": message.plan_id})

    async def one_plan(self, request: web.Request) -> web.Response:
        return answer(await plan_book.one_plan(self.bus, self.streams, request.match_info["plan_id"]))

    async def _known(self, deployment_id: str) -> dict[str, object]:
        return await deployment_book.one_deployment(self.bus, self.streams, deployment_id)


class PushBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/registry/push"""

    reference: str


class DeployBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/deployments. What may be asked for is checked in `services.asking`, as for the command line."""

    range_id: str
    images: list[str]
    deployment_id: str | None = None
    platform: str | None = None
    engine_url: str | None = None
    priority: int = 5


class PlanBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """POST /api/v1/plans: the images that will be needed, and the ranges that will need them."""

    images: list[str]
    range_ids: list[str] = []
    plan_id: str | None = None
    platform: str | None = None


def id_of(key: str) -> str:
    """The same id for the same key; a key may hold anything, an id may not."""
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:40]}"


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(DEFAULT_ITEMS))
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ITEMS:
        raise BadInput(f"limit must be a number from 1 to {MOST_ITEMS}, not {text!r}")
    return int(text)


def _flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise BadInput(f"{name} must be true or false, not {text!r}")
    return text == "true"
