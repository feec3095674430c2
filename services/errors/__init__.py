"""Tree of the project's errors. Each has a stable `code`; the message says what failed, on what, and why.

CyroidError
├── BadInput            the request is wrong; no retry helps
│   ├── BadReference
│   ├── NotAnImage      what the registry has there is no image that an engine could run
│   ├── NotFound        image, range, container, deployment
│   ├── Rebuilt         the reference names other content now than the one asked for
│   ├── DuplicateDeployment   the id is taken by a deployment or plan of something else
│   ├── PromptAnswered   somebody else answered first
│   ├── NotConfirmed    a command about many, without their number
│   ├── RangeAlive      its agent would announce again what is to be forgotten
│   ├── RangeElsewhere  another host has a range of this id
│   ├── HostAlive       its registry-pusher would report again what is to be forgotten
│   ├── BadArchive      a tar that is no image, or is cut off
│   └── BuildFailed
├── Unavailable         a dependency is unavailable; retry helps
│   ├── EngineUnavailable
│   ├── RegistryUnavailable
│   ├── RedisUnavailable
│   └── Busy            the export's turn has not come                  (services.tar_server.export_pacing)
├── TransferFailed      it started and did not end well; retry may help
│   ├── Stalled
│   ├── WrongContent    the bytes are not the ones wanted
│   ├── BlobDamaged     the registry has other bytes under a digest than it says
│   ├── LayersNotMounted   mounted layers cannot be shown to a range, or its engine cannot take them: they are pulled
│   │   └── ContentRefused  a layer's content is the reason          (services.adapters.index_limits)
│   │       └── LimitReached  a program came to a limit with it
│   ├── LayerUnreadable
│   │   └── LayerDamaged   the engine itself cannot give the layer as it came
│   ├── OfferRefused    the tar server refuses this archive             (services.agent.archive_download)
│   ├── TarServerUnavailable                                            (services.agent.archive_download)
│   └── TarServerBusy   it did not come to this archive in time         (services.agent.archive_download)
├── NoSpace             a disk is full; retry helps once there is room
├── ApiProblem          what the HTTP API answered in place of what was asked for   (services.cli.remote)
├── RequestRefused      an HTTP request that the server does not carry out
├── Cancelled           the transfer was cancelled              (services.agent.cancellation)
├── Overtaken           a message about a deployment that is not known yet   (services.deployer.requests)
└── RoleFailed          a part of a running process stopped by itself   (services.runtime.runner)

`services.errors.register` has the HTTP status, exit status, title and advice of every code. Exit statuses of the
command line: 0 done, 1 something unexpected or `doctor` found something wrong, 2 bad input or usage, 4 something is
unavailable, 5 a transfer or deployment failed or `verify` found something wrong, 6 no space, 7 a role failed, 130
Ctrl-C.

Each branch is also one of the bus's kinds of error (Permanent, Unavailable, Transient), so a handler may let them out.
"""

from __future__ import annotations

from events.bus import BusError, BusUnreachable, HandlingError, Permanent, Transient
from events.bus import Unavailable as HandlerUnavailable
from events.messages import Failure
from services.errors.register import REGISTER, ErrorEntry


class CyroidError(HandlingError):
    """The root. `failure()` is its form on the wire.

    `hint` is what to run on the command line next; only the command line prints it. The code decides all that
    `services.errors.register` has; a code that is not in it (another process's) leaves what the class says.
    """

    code = "error"
    entry: ErrorEntry = REGISTER["error"]
    retryable: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.entry = REGISTER[cls.code]
        cls.retryable = cls.entry.retryable

    def __init__(self, message: str, *, code: str | None = None, hint: str = "") -> None:
        super().__init__(message, code=code)
        self.hint = hint
        self.entry = REGISTER.get(self.code, type(self).entry)
        self.retryable = self.entry.retryable
        self.final = not self.entry.retryable

    def failure(self) -> Failure:
        return Failure(code=self.code, message=str(self), retryable=self.retryable)


def retry_helps(failure: Failure) -> bool:
    """Whether another try may end otherwise: who tells the failure says so, and the register does where it knows it."""
    entry = REGISTER.get(failure.code)
    return failure.retryable and (entry is None or entry.retryable)


class BadInput(CyroidError, Permanent):
    """The request is wrong."""

    code = "bad_input"


class BadReference(BadInput):
    """The text is not an image reference."""

    code = "bad_reference"


class NotFound(BadInput):
    """An image, range, container, deployment or plan does not exist."""

    code = "not_found"


class Rebuilt(BadInput):
    """The reference names other content now: ask again for what it names."""

    code = "rebuilt"


class DuplicateDeployment(BadInput):
    """The id is taken by a deployment, or a plan, of something else."""

    code = "duplicate_deployment"


class NotAnImage(BadInput):
    """What a registry has under a reference is an index, an artifact or an attestation. `content` is that document."""

    code = "not_an_image"

    def __init__(self, message: str, content: bytes = b"") -> None:
        super().__init__(message)
        self.content = content


class PromptAnswered(BadInput):
    """Somebody else answered a prompt first; the message says who and how."""

    code = "prompt_answered"


class NotConfirmed(BadInput):
    """A command about many was not confirmed with their number, or it is another number by now."""

    code = "not_confirmed"


class RangeAlive(BadInput):
    """A range whose agent is alive cannot be forgotten: it would announce itself again."""

    code = "range_alive"


class HostAlive(BadInput):
    """A host that sends heartbeats cannot be forgotten: it would report itself again."""

    code = "host_alive"


class RangeElsewhere(BadInput):
    """Another host of the installation has a range of this id."""

    code = "range_elsewhere"


class BadArchive(BadInput):
    """The file is not an image archive, or is damaged."""

    code = "bad_archive"


class BuildFailed(BadInput):
    """The build failed on the engine."""

    code = "build_failed"


class Unavailable(CyroidError, HandlerUnavailable):
    """A dependency is unavailable; another try may help."""

    code = "unavailable"


class EngineUnavailable(Unavailable):
    """The engine cannot be reached, or answers with a server error."""

    code = "engine_unavailable"


class RegistryUnavailable(Unavailable):
    """The registry cannot be reached, refuses access, or is not a registry."""

    code = "registry_unavailable"


class RedisUnavailable(Unavailable):
    """Redis cannot be reached."""

    code = "redis_unavailable"


class TransferFailed(CyroidError, Transient):
    """A transfer began and failed; another try may help."""

    code = "transfer_failed"


class Stalled(TransferFailed):
    """A transfer made no progress for too long."""

    code = "stalled"


class WrongContent(TransferFailed):
    """The bytes do not have the expected digest."""

    code = "wrong_content"


class BlobDamaged(TransferFailed):
    """A blob in the registry was cut or changed on its disk: it is to be set aside, then another try sends it."""

    code = "blob_damaged"


class LayersNotMounted(TransferFailed):
    """Layers cannot be shown to a range, or its engine cannot take them; the ordinary pull follows."""

    code = "layers_not_mounted"


class LayerUnreadable(TransferFailed):
    """A layer source cannot give a layer or config."""

    code = "layer_unreadable"


class LayerDamaged(LayerUnreadable):
    """The engine cannot give the layer as it came; its own push cannot either, so another try does not help."""

    code = "layer_damaged"


class NoSpace(CyroidError, Transient):
    """A disk is full."""

    code = "no_space"


class RequestRefused(CyroidError, Permanent):
    """An HTTP server refuses a request; the code says why."""

    code = "bad_request"


def of_bus(error: BusError) -> RedisUnavailable:
    """The bus's error as one of ours. Only an unreachable Redis gets the advice to check its URL."""
    text = str(error).rstrip(".")
    if isinstance(error, BusUnreachable):
        text += "; see whether Redis runs and CYROID_REDIS_URL is right"
    return RedisUnavailable(text)
