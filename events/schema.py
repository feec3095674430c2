"""AsyncAPI 3 document and JSON Schemas, made from the Structs, for services in other languages.

The document names every stream as a channel, with the messages that may be added there and who adds them; an entry's
plain fields are the message's headers, its `data` the payload.
"""

from __future__ import annotations

from typing import Any

import msgspec

from events.authority import ALLOWED, StreamKind
from events.codec import ATTRIBUTE_LIMIT_BYTES, ENTRY_LIMIT_BYTES, message_types
from events.messages import END
from events.streams import Streams

ASYNCAPI = "3.0.0"

#: Who publishes on which stream, and who reads it; what may be published there is said by `events.authority`.
CHANNELS: dict[StreamKind, str] = {
    "images": "Added by build, import, promote, the API, the command line, the registry-pusher, the deployer (push"
    " requests), the collector, and any other service.",
    "deployments": "Added by the API, the command line and any other service; the deployer adds how a deployment ended"
    " and the deployments of plans, the range gateway which range met a limit.",
    "deployer": "The deployer's timers and nudges to itself, and the answers of layer-mounters.",
    "host_inbox": "Added by the deployer, and by registry-pushers of other hosts, which hand on what is for this one."
    " Read by the layer-mounter and the registry-pusher of one host.",
    "inbox": "Added by the deployer, read by the agent of one range.",
    "outbox": "Added by the agent of one range alone, through its gateway. Read as hostile.",
    "range_progress": "Progress of one range's transfers, added by its agent. Lossy: old entries are removed. Read as"
    " hostile.",
    "progress": "Progress of pushes and transfers, added by the registry-pusher, the deployer, and the tracker, which"
    " copies every range's. Lossy: old entries are removed.",
}
#: Streams of dead letters, whose entries are no messages but say what became of one.
LETTERS: dict[str, str] = {
    "dead": "Entries that a service gave up on, with the reason and every byte. Read by people.",
    "range_dead": "Entries that the agent of one range gave up on.",
    "refused": "Entries of one range's outbox that a service gave up on, the last ones.",
}
#: Where a schema finds what it refers to: in itself, or among the document's components.
_OWN = "#/$defs/{name}"
_SHARED = "#/components/schemas/{name}"


def addresses(streams: Streams) -> dict[str, str]:
    """The key of each channel; `{range_id}` stands for a range's id."""
    return {
        "images": streams.images,
        "deployments": streams.deployments,
        "deployer": streams.deployer,
        "host_inbox": streams.host_inbox("{host}"),
        "inbox": streams.inbox("{range_id}"),
        "outbox": streams.outbox("{range_id}"),
        "range_progress": streams.range_progress("{range_id}"),
        "progress": streams.progress,
        "dead": streams.dead,
        "range_dead": streams.range_dead("{range_id}"),
        "refused": streams.refused("{range_id}"),
    }


def json_schemas() -> dict[str, dict[str, Any]]:
    """A JSON Schema (2020-12) of `data` for each wire type, self-contained."""
    schemas = {}
    for wire, cls in message_types().items():
        own, definitions = _payload(cls, _OWN)
        schemas[wire] = {**own, "$defs": definitions} if definitions else own
    return schemas


def asyncapi(streams: Streams, version: str = "1") -> dict[str, Any]:
    """The AsyncAPI document. Secrets are fields like others in it; their values never are."""
    keys = addresses(streams)
    schemas: dict[str, Any] = {"headers": headers(), "letter": letter()}
    for wire, cls in message_types().items():
        schemas[wire], definitions = _payload(cls, _SHARED)
        schemas |= definitions
    about = {str(name): text for name, text in CHANNELS.items()} | LETTERS
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "CYROID images",
            "version": version,
            "description": "Redis streams. An entry's fields are the headers below, its `data` the payload as JSON. "
            f"`source` + `id` is the deduplication key; an entry has at most {ENTRY_LIMIT_BYTES} bytes.",
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(name, keys[name], text) for name, text in about.items()},
        "operations": {
            f"add_to_{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": text,
            }
            for name, text in about.items()
        },
        "components": {
            "messages": {
                **{wire: _message(wire, cls) for wire, cls in message_types().items()},
                "letter": {
                    "name": "letter",
                    "title": "DeadLetter",
                    "summary": "An entry that a group gave up on: plain fields, without `data`.",
                    "payload": {"$ref": "#/components/schemas/letter"},
                },
            },
            "schemas": schemas,
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
            "source": {**short, "description": "Who published it: `build@host1`."},
            "subject": {"type": "string", "description": "What it is about: an image reference or a range's id."},
            "time": {"type": "string", "format": "date-time"},
            "correlationid": {"type": "string", "description": "Stays the same through all that one request causes."},
            "causationid": {"type": "string", "description": "The `id` of the entry that caused this one."},
            "traceparent": {"type": "string", "description": "W3C trace context."},
            "actor": {"type": "string", "description": "Who asked for a command, where that is known."},
        },
    }


def letter() -> dict[str, Any]:
    """The header fields of a dead letter (`events.dead_letters`)."""
    text = {"type": "string"}
    count = {"type": "string", "pattern": "^[0-9]+$"}
    return {
        "type": "object",
        "required": ["reason", "message", "stream", "group", "entry", "failed", "crashed", "time"],
        "properties": {
            "reason": {**text, "description": "A stable code."},
            "message": {**text, "description": "What, where, why, for a person."},
            "stream": {**text, "description": "Where the entry lay."},
            "group": {**text, "description": "Who gave it up."},
            "entry": {**text, "description": "Its id there."},
            "failed": {**count, "description": "How many attempts failed."},
            "crashed": {**count, "description": "How many workers vanished with it."},
            "time": {**text, "format": "date-time"},
            "packed": {**text, "description": "All fields as MessagePack, where they are many or a name comes twice."},
        },
        "patternProperties": {"^raw:": {**text, "description": "One field of the entry, under its name."}},
    }


def _channel(name: str, address: str, description: str) -> dict[str, Any]:
    allowed = {str(kind): classes for kind, classes in ALLOWED.items()}.get(name, ())
    messages = {_key(cls): {"$ref": f"#/components/messages/{_tag(cls)}"} for cls in allowed}
    channel: dict[str, Any] = {
        "address": address,
        "description": description,
        "messages": messages or {"DeadLetter": {"$ref": "#/components/messages/letter"}},
    }
    if "{range_id}" in address:
        channel["parameters"] = {"range_id": {"description": "A range's id: letters, digits, `_`, `.`, `-`."}}
    if "{host}" in address:
        channel["parameters"] = {"host": {"description": "A host's name: letters, digits, `_`, `.`, `-`."}}
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


def _payload(cls: type[Any], place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a message's `data`, and those that it refers to, to be put at `place`."""
    (schema,), definitions = msgspec.json.schema_components([cls], ref_template=place)
    own = dict(definitions.pop(cls.__name__)) if schema.get("$ref") else dict(schema)
    own["properties"] = {name: value for name, value in own["properties"].items() if name != "type"}
    required = [name for name in own.get("required", []) if name != "type"]
    own["required"] = required
    return _plain(own), _plain(definitions)


def _plain(part: Any) -> Any:
    """With plain `$` in patterns: JSON Schema takes it as the end, and some languages' patterns have no look-ahead."""
    if isinstance(part, dict):
        return {
            name: value.replace(END, "$") if name == "pattern" and isinstance(value, str) else _plain(value)
            for name, value in part.items()
        }
    return [_plain(one) for one in part] if isinstance(part, list | tuple) else part


def _tag(cls: type[Any]) -> str:
    return str(cls.__struct_config__.tag)


def _key(cls: type[Any]) -> str:
    return cls.__name__
