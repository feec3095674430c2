"""Parser of requests: path, query and body, each decoded into its type. Raises BadInput."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar, get_origin

import msgspec
from multidict import MultiMapping

from events.messages import Identifier
from services.errors import BadInput

S = TypeVar("S", bound=msgspec.Struct)
Id = Annotated[
    Identifier,
    msgspec.Meta(
        description="a letter or digit, then letters, digits, dots, dashes and underscores, at most 128 characters"
    ),
]
#: Every parameter of a path, by its name.
PATH_TYPES: Mapping[str, Any] = {
    "range_id": Id,
    "deployment_id": Id,
    "plan_id": Id,
    "push_id": Id,
    "prompt_id": Id,
    "host": Id,
    "ingest_id": Id,
    "batch_id": Id,
    "letter_id": Annotated[
        str,
        msgspec.Meta(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$", description="an entry's id, such as 1795442944833-0"),
    ],
    "transfer_id": Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="a transfer's id")],
    "reference": Annotated[
        str, msgspec.Meta(min_length=1, max_length=1024, description="an image reference, slashes included")
    ],
}
#: What is repeated of a value that is wrong.
_SHOWN = 64
_FIELD = re.compile(r"\$\.?(?P<field>[\w.\[\]]*)`?$")


def read_path(values: Mapping[str, str]) -> dict[str, str]:
    """The path's parameters, each checked."""
    return {name: _convert(name, value, PATH_TYPES[name]) for name, value in values.items()}


class QueryParser:
    """Parses queries, and keeps the latest ones: the same lists are asked for again and again."""

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._known: OrderedDict[tuple[type[msgspec.Struct], str], msgspec.Struct] = OrderedDict()

    def read(self, text: str, values: Callable[[], MultiMapping[str]], kind: type[S]) -> S:
        """The query `text`, whose parsed `values` are asked for where they are needed. Raises BadInput."""
        found = self._known.get((kind, text))
        if isinstance(found, kind):
            return found
        parsed = read_query(values(), kind)
        self._known[kind, text] = parsed
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        return parsed


def read_query(values: MultiMapping[str], kind: type[S]) -> S:
    """The query's parameters as a Struct. Unknown and repeated ones are errors, except where the type is a list."""
    fields = _fields_of(kind)
    found: dict[str, object] = {}
    for name in dict.fromkeys(values):
        field = fields.get(name)
        if field is None:
            known = f"there are: {', '.join(fields)}" if fields else "there are none"
            raise BadInput(f"the query has no parameter {_shown(name)}; {known}")
        texts = values.getall(name)
        if get_origin(field.type) is list:
            found[name] = [_text(name, text) for text in texts]
        elif len(texts) > 1:
            raise BadInput(f"the query has the parameter {name} {len(texts)} times; give it once")
        else:
            found[name] = _convert(name, texts[0], field.type)
    missing = [name for name, field in fields.items() if field.required and name not in found]
    if missing:
        raise BadInput(f"the query lacks the parameter {missing[0]}")
    return msgspec.convert(found, kind)


@cache
def _fields_of(kind: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    """Fields by name. To find them out takes longer than all else that a request does."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def read_body(content: bytes, kind: type[S]) -> S:
    """The body's JSON as a Struct; an empty body counts as `{}`."""
    try:
        return msgspec.json.decode(content or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadInput(f"the request's body: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"the request's body is no JSON: {error}") from error
    except RecursionError as error:
        raise BadInput("the request's body is nested too deeply") from error


def _convert(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(_text(name, text), kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"{name} must be {description(kind)}, not {_shown(text)}") from error


def _text(name: str, text: str) -> str:
    """Check that a decoded value is text: percent-decoding lets NUL and lone surrogates through."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadInput(f"{name} has a character that is no text")
    return text


def description(kind: Any) -> str:
    """A description of the values that are allowed, for error messages."""
    if kind is bool:
        return "true or false"
    metas = [part for part in getattr(kind, "__metadata__", ()) if isinstance(part, msgspec.Meta)]
    return next((meta.description for meta in metas if meta.description), "text")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
