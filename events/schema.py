"""What services in other languages need to speak here: an AsyncAPI 3 document and JSON Schemas, from the Structs.

The document names every stream as a channel, with the messages that may be added there and who adds them; an entry's
plain fields are the message's headers, its `data` the payload.
"""

from __future__ import annotations

from typing import Any

import msgspec

from events import messages as said
from events.codec import ATTRIBUTE_LIMIT_BYTES, ENTRY_LIMIT_BYTES, message_types
from events.streams import Streams

ASYNCAPI = "3.0.0"

#: What is said on which stream, by whom, read by which groups.
CHANNELS: dict[str, tuple[tuple[type[Any], ...], str]] = {
    "images": (
        (
            said.ImageBuilt,
            said.ImageImported,
            said.ImagePromoted,
            said.PushRequested,
            said.ImagePushed,
            said.ImagePushFailed,
            said.ImageDeleted,
        ),
        "Added by build, import, promote, the API, the registry-pusher, and any other service.",
    ),
    "deployments": (
        (
            said.DeploymentRequested,
            said.DeploymentPlanned,
            said.DeploymentCancelRequested,
            said.DeploymentRetryRequested,
            said.DeploymentSucceeded,
            said.DeploymentFailed,
            said.DeploymentCancelled,
        ),
        "Added by the API and any other service; the deployer adds how a deployment ended.",
    ),
    "deployer": ((said.DeploymentAdvance,), "The deployer's timers and nudges to itself, added by it alone."),
    "inbox": (
        (said.PullRequested, said.LoadOffered, said.TransferCancelled),
        "Added by the deployer, read by the agent of one range.",
    ),
    "outbox": (
        (said.AgentStarted, said.TarRequested, said.ImageReady, said.ImageFailed),
        "Added by the agent of one range alone.",
    ),
    "progress": ((said.TransferProgress,), "How far transfers are. Lossy: old entries go."),
}


def addresses(streams: Streams) -> dict[str, str]:
    """The key of each channel; `{range_id}` stands for a range's id."""
    return {
        "images": streams.images,
        "deployments": streams.deployments,
        "deployer": streams.deployer,
        "inbox": streams.inbox("{range_id}"),
        "outbox": streams.outbox("{range_id}"),
        "progress": streams.progress,
    }


def json_schemas() -> dict[str, dict[str, Any]]:
    """A JSON Schema (2020-12) of `data` for each wire type, self-contained."""
    return {wire: _payload(cls) for wire, cls in message_types().items()}


def asyncapi(streams: Streams, version: str = "1") -> dict[str, Any]:
    """The AsyncAPI document. Secrets are fields like others in it; their values never are."""
    keys = addresses(streams)
    schemas = json_schemas()
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "CYROID images",
            "version": version,
            "description": "Redis streams. An entry's fields are the headers below, its `data` the payload as JSON. "
            f"`source` + `id` is the deduplication key; an entry has at most {ENTRY_LIMIT_BYTES} bytes.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, keys[name]) for name in CHANNELS},
        "operations": {
            f"add_to_{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": CHANNELS[name][1],
            }
            for name in CHANNELS
        },
        "components": {
            "messages": {wire: _message(wire, cls) for wire, cls in message_types().items()},
            "schemas": {**schemas, "headers": headers()},
        },
    }


def headers() -> dict[str, Any]:
    """The fields of every entry beside `data` (CloudEvents attributes)."""
    short = {"type": "string", "minLength": 1, "maxLength": ATTRIBUTE_LIMIT_BYTES}
    return {
        "type": "object",
        "required": ["id", "type", "source", "subject", "time"],
        "properties": {
            "id": {**short, "description": "Unique per source; a UUIDv7 or ULID. Adding it again adds nothing."},
            "type": {"type": "string", "enum": sorted(message_types())},
            "source": {**short, "description": "Who says it: `build@host1`."},
            "subject": {"type": "string", "description": "What it is about: an image reference or a range's id."},
            "time": {"type": "string", "format": "date-time"},
            "correlationid": {"type": "string", "description": "Stays the same through all that one request causes."},
            "causationid": {"type": "string", "description": "The `id` of the entry that caused this one."},
            "traceparent": {"type": "string", "description": "W3C trace context."},
        },
    }


def _channel(name: str, address: str) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": CHANNELS[name][1],
        "messages": {_key(cls): {"$ref": f"#/components/messages/{_tag(cls)}"} for cls in CHANNELS[name][0]},
    }
    if "{range_id}" in address:
        channel["parameters"] = {"range_id": {"description": "A range's id: letters, digits, `_`, `.`, `-`."}}
    return channel


def _message(wire: str, cls: type[Any]) -> dict[str, Any]:
    return {
        "name": wire,
        "title": cls.__name__,
        "summary": " ".join((cls.__doc__ or "").split()),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"$ref": f"#/components/schemas/{wire}"},
    }


def _payload(cls: type[Any]) -> dict[str, Any]:
    (schema,), definitions = msgspec.json.schema_components([cls], ref_template="#/$defs/{name}")
    own = dict(definitions.pop(cls.__name__)) if schema.get("$ref") else dict(schema)
    own["properties"] = {name: value for name, value in own["properties"].items() if name != "type"}
    required = [name for name in own.get("required", []) if name != "type"]
    own["required"] = required
    if definitions:
        own["$defs"] = definitions
    return {name: _plain(part) for name, part in own.items()}


def _plain(part: Any) -> Any:
    """With plain `$` in patterns: for JSON Schema it is the end, and some languages' patterns cannot look ahead."""
    if isinstance(part, dict):
        return {
            name: value.replace(said.END, "$") if name == "pattern" and isinstance(value, str) else _plain(value)
            for name, value in part.items()
        }
    return [_plain(one) for one in part] if isinstance(part, list | tuple) else part


def _tag(cls: type[Any]) -> str:
    return str(cls.__struct_config__.tag)


def _key(cls: type[Any]) -> str:
    return cls.__name__
