"""Reads `services.settings` from the environment, and refuses unknown names and wrong values.

A typo in a variable's name would silently leave a default in force, so an unknown `CYROID_*` name stops the start,
and so does a value that does not fit. All errors are reported at once, one line each, never with a secret in it.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec.structs import FieldInfo

from services import settings as settings_module
from services.core.secrets import is_secret, is_url, shown
from services.errors import BadInput
from services.settings import Settings

PREFIX = "CYROID_"
#: Names that CYROID's own services use; they are none of our business and no mistake.
FOREIGN = frozenset(
    {
        "CYROID_DATA_DIR",
        "CYROID_VERSION",
        "CYROID_IMAGES_API",
        "CYROID_IMAGES_TOKEN",
        "CYROID_IMAGES_TOKEN_FILE",
        "CYROID_MGMT_NETWORK",
        "CYROID_MGMT_SUBNET",
        "CYROID_RANGES_NETWORK",
        "CYROID_RANGES_SUBNET",
    }
)
SECRET_FILE_LIMIT_BYTES = 64 * 1024


def variable_of(field: str) -> str:
    """`redis_url` → `CYROID_REDIS_URL`."""
    return PREFIX + field.upper()


def read_settings(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from `environment`; `overrides` (from command line flags) win where they are not None.

    Raises BadInput that names every variable that is unknown or wrong.
    """
    fields = {variable_of(field.name): field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}  # Any: of each field its own type, to which the text was converted
    problems: list[str] = []
    for variable in sorted(name for name in environment if name.startswith(PREFIX) and name not in FOREIGN):
        try:
            field, text = _field_and_text(variable, environment, fields)
            if text.strip():  # Compose passes an unset variable on as an empty one: that means the default
                values[field.name] = _convert(field, text)
        except ValueError as problem:
            problems.append(f"{variable}: {problem}")
    for name, value in overrides.items():
        if value is None:
            continue
        try:
            values[name] = _convert(fields[variable_of(name)], str(value))
        except ValueError as problem:
            problems.append(f"--{name.replace('_', '-')}: {problem}")
    if problems:
        raise BadInput("\n".join(problems), code="bad_setting")
    settings = Settings(**values)
    if contradictions := settings.contradictions():
        lines = (f"{variable_of(name)}: {reason}" for name, reason in contradictions.items())
        raise BadInput("\n".join(lines), code="bad_setting")
    return settings


def _field_and_text(
    variable: str, environment: Mapping[str, str], fields: Mapping[str, FieldInfo]
) -> tuple[FieldInfo, str]:
    """The field that a variable names, and the text of its value. Raises ValueError with the reason."""
    if variable in fields:
        return fields[variable], environment[variable]
    plain = variable.removesuffix("_FILE")
    if plain != variable and plain in fields and is_secret(fields[plain]):
        if plain in environment:
            raise ValueError(f"set either {plain} or {variable}, not both")
        return fields[plain], _read_secret(Path(environment[variable]))
    near = difflib.get_close_matches(variable, fields, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else "; `cyroid-images settings` lists all names"
    raise ValueError(f"there is no such setting{hint}")


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SECRET_FILE_LIMIT_BYTES + 1)
    except OSError as problem:
        raise ValueError(f"cannot read {path}: {problem.strerror or problem}") from problem
    if len(content) > SECRET_FILE_LIMIT_BYTES:
        raise ValueError(f"{path} is larger than {SECRET_FILE_LIMIT_BYTES} bytes, that is no secret")
    try:
        return content.decode().strip()
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8 text") from problem


def _convert(field: FieldInfo, text: str) -> Any:
    try:
        return msgspec.convert(text.strip(), field.type, strict=False)
    except msgspec.ValidationError as problem:
        got = "" if is_secret(field) and (not is_url(field) or "@" in text) else f", not {shown(field, text)!r}"
        raise ValueError(f"must be {expected(field)}{got}") from problem


def expected(field: FieldInfo) -> str:
    """A description of the values that a field takes, for a person."""
    if field.type is bool:
        return "true or false"
    choices = [str(choice) for choice in get_args(field.type) if isinstance(choice, str)]
    if choices:
        return "one of " + ", ".join(choices)
    descriptions = [part.description for part in get_args(field.type) if isinstance(part, msgspec.Meta)]
    return next((text for text in descriptions if text), "text")


def documentation() -> dict[str, str]:
    """The sentence under each field of Settings, by field name."""
    tree = ast.parse(inspect.getsource(settings_module))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == Settings.__name__)
    found: dict[str, str] = {}
    for field, doc in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(doc.value)).split())
    return found
