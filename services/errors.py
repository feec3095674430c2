"""The tree of errors a person may meet. Each has a stable `code`, says what, where, why and what to do.

CyroidError
├── BadInput            the request is wrong; no retry helps          (exit 2, HTTP 400/404/409)
│   ├── BadReference
│   ├── NotFound        image, range, container, deployment
│   ├── Rebuilt         the reference names other content now than the one asked for
│   ├── DuplicateDeployment   the id is taken by a deployment or plan of something else
│   ├── RangeAlive      its agent would announce again what is to be forgotten
│   ├── BadArchive      a tar that is no image, or is cut off
│   └── BuildFailed
├── Unavailable         something we stand on is away; retry helps    (exit 4, HTTP 503)
│   ├── EngineUnavailable
│   ├── RegistryUnavailable
│   └── RedisUnavailable
├── TransferFailed      it started and did not end well; retry may help (exit 5, HTTP 502)
│   ├── Stalled
│   ├── WrongContent    the bytes are not the ones wanted
│   └── LayerUnreadable
│       └── LayerDamaged   the engine itself cannot give the layer as it came (HTTP 422)
├── NoSpace             a disk is full; retry helps once there is room (exit 6, HTTP 507)
└── RoleFailed          a part of a running process stopped by itself (exit 7; lives in services.runner)

Exit statuses of the command line: 0 done, 1 something unexpected or `doctor` found something wrong, 2 bad input or
usage, 4 something is away, 5 a transfer or deployment failed or `verify` found something wrong, 6 no space, 7 a role
failed, 130 Ctrl-C.

Each branch is also one of the bus's kinds of error (Permanent, Unavailable, Transient), so a handler may let them out.
"""

from __future__ import annotations

from typing import ClassVar

from events.bus import HandlingError, Permanent, Transient
from events.bus import Unavailable as BusUnavailable
from events.messages import Failure


class CyroidError(HandlingError):
    """The root. `failure()` is its form on the wire."""

    code = "error"
    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def failure(self) -> Failure:
        return Failure(code=self.code, message=str(self), retryable=self.retryable)


class BadInput(CyroidError, Permanent):
    """The request is wrong."""

    code = "bad_input"
    exit_status = 2
    http_status = 400


class BadReference(BadInput):
    code = "bad_reference"


class NotFound(BadInput):
    code = "not_found"
    http_status = 404


class Rebuilt(BadInput):
    """The reference names other content now: ask again for what it names."""

    code = "rebuilt"
    http_status = 409


class DuplicateDeployment(BadInput):
    """The id is taken by a deployment, or a plan, of something else."""

    code = "duplicate_deployment"
    http_status = 409


class RangeAlive(BadInput):
    """A range whose agent is alive cannot be forgotten: it would announce itself again."""

    code = "range_alive"
    http_status = 409


class BadArchive(BadInput):
    code = "bad_archive"


class BuildFailed(BadInput):
    code = "build_failed"


class Unavailable(CyroidError, BusUnavailable):
    """Something we stand on is away."""

    code = "unavailable"
    retryable = True
    exit_status = 4
    http_status = 503


class EngineUnavailable(Unavailable):
    code = "engine_unavailable"


class RegistryUnavailable(Unavailable):
    code = "registry_unavailable"


class RedisUnavailable(Unavailable):
    code = "redis_unavailable"


class TransferFailed(CyroidError, Transient):
    """Bytes were on their way and did not arrive well."""

    code = "transfer_failed"
    retryable = True
    exit_status = 5
    http_status = 502


class Stalled(TransferFailed):
    code = "stalled"


class WrongContent(TransferFailed):
    code = "wrong_content"


class LayerUnreadable(TransferFailed):
    code = "layer_unreadable"


class LayerDamaged(LayerUnreadable):
    """The engine itself cannot give the layer as it came, so its own push cannot either, however often it is asked."""

    code = "layer_damaged"
    retryable = False
    http_status = 422


class NoSpace(CyroidError, Transient):
    """A disk is full."""

    code = "no_space"
    retryable = True
    exit_status = 6
    http_status = 507
