"""The worker: leases entries of a subscription, runs handlers, renews leases, settles outcomes."""

from events.worker.worker import Worker

__all__ = ["Worker"]
