"""Metrics of what became of deployments and of the transfers to their ranges, as the deployer decides it.

The deployer is scraped in every installation, the agents of ranges in none: they listen inside their ranges.
"""

from __future__ import annotations

from typing import get_args

from events.messages import Arrival
from services.core.deployments.deployment import Deployment
from services.core.deployments.transfer_results import Kind, mount_failures, transfer_results
from services.errors.register import REGISTER
from services.runtime import metrics

#: A range may tell up to 2⁵³ bytes. More than this of one image is not believed: the sum would say nothing any more.
BYTES_LIMIT = 2**40
#: The label of error codes that the register does not have: a range may make up as many as it likes.
OTHER = "other"


def reason(code: str) -> str:
    """An error code as a label's value."""
    return code if code in REGISTER else OTHER


def begin() -> None:
    """Say 0 of what has not happened yet: of a counter that begins with 1, `increase` does not see that one."""
    for outcome in ("succeeded", "failed", "cancelled"):
        metrics.deployments.labels(outcome=outcome)
    for kind in get_args(Kind):
        metrics.range_transfer_failures.labels(kind=kind, reason=OTHER)
        for outcome in ("tar_requested", "failed"):
            metrics.range_transfers.labels(kind=kind, way="none", outcome=outcome)
    for way in get_args(Arrival):
        metrics.range_transfers.labels(kind="load" if way == "loaded" else "pull", way=way, outcome="done")
        metrics.range_transferred_bytes.labels(way=way)
    for code in ("layers_not_mounted", "layers_unmountable", "mount_stalled", "no_layers", OTHER):
        metrics.not_mounted.labels(reason=code)


def count_ends(before: Deployment | None, after: Deployment) -> None:
    """Count what a transition ended: the deployment, and transfers; and what it says was not mounted."""
    if not after.open and (before is None or before.open):
        metrics.deployments.labels(outcome=after.state).inc()
    for result in transfer_results(before, after):
        way = result.how or "none"
        metrics.range_transfers.labels(kind=result.kind, way=way, outcome=result.outcome).inc()
        if result.how is not None:
            metrics.range_transferred_bytes.labels(way=way).inc(min(result.received_bytes, BYTES_LIMIT))
            metrics.range_transfer_seconds.labels(way=way).observe(result.seconds)
        if result.error is not None:
            metrics.range_transfer_failures.labels(kind=result.kind, reason=reason(result.error.code)).inc()
    for failure in mount_failures(before, after):
        metrics.not_mounted.labels(reason=reason(failure.code)).inc()
