"""The register of decoders is whole: whatever decodes bytes is in it, or is listed here with the reason why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.register import DECODERS
from tests.fuzz.test_servers import COVERED as BY_SERVERS

ROOT = Path(__file__).parents[2]
#: Calls that turn bytes or text into values.
DECODES = re.compile(
    r"(?:msgspec\.(?:json|msgpack)\.decode|msgspec\.convert|json\.loads|orjson\.loads|_[A-Z_]+\.decode|_decoder\(.*\)\.decode"
    r"|_[A-Z_]+\.decode_lines|struct\.unpack\w*|int\.from_bytes|\w*\.?b64decode|datetime\.fromisoformat|\w+\.loads"
    r"|urlsplit|decode|protobuf\.fields|ipaddress\.\w+)"
)
MAY_DECODE = re.compile(r"decode|loads|convert|unpack|from_bytes|fromisoformat|urlsplit|fields\(|ipaddress")
#: These read what this project itself wrote where nobody else writes, or what the kernel or a test did.
OWN = {
    "events/worker/entry_handler.py:EntryHandler._handle": "by events/codec.py; tests/unit/events/test_codec_fuzz.py",
    "services/adapters/layer_store.py:LayerStore._size": "by tar_split.py; zlib's and JSON's errors are one there",
    "services/adapters/layer_store.py:LayerStore.read": "by tar_split.py; zlib's and JSON's errors are one there",
    "services/adapters/shown_layers_files.py:ShownLayersFiles.read": "the layer-mounter's own file",
    "services/api/authentication.py:check_listen": "the setting `api_listen`, whose form is checked",
    "services/api/page_sessions.py:PageSessions._session": "what was sealed here; other bytes do not open",
    "services/api/parameters.py:_convert": "tests/unit/services/api/test_fuzz.py, for every route",
    "services/api/parameters.py:read_body": "tests/unit/services/api/test_fuzz.py, for every route",
    "services/api/parameters.py:read_query": "tests/unit/services/api/test_fuzz.py, for every route",
    "services/commands/requests.py:_checked": "a message that was just encoded",
    "services/doctor/role_checks.py:_moment": "text; what is no time is none",
    "services/runtime/operations.py:Operations._is_client": "the address that the socket tells",
    "services/runtime/operations.py:networks": "a setting, checked by services/settings.py",
    "events/gateway/bus.py:GatewayBus._ask": "the gateway's answers, checked in tests/contract/test_agent_bus.py",
    "events/gateway/bus.py:GatewayBus._ask_beat": "the gateway's answers",
    "events/gateway/link.py:_Connection._listen": "the gateway's answers; refused by name as malformed",
    "events/gateway/link.py:Link._connect": "the gateway's answers; refused by name as malformed",
    "services/core/images/go_json.py:_without_nulls": "a decoded document",
}
#: Modules with an order of their own: the first has the other errors around it, the others decode what they encoded.
ALONE = ("services/core/images/go_json.py", "services/commands/requests.py", "services/cli/store_rules.py")


def _functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function, by the classes that it is in; of a function within a function its own name alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
            yield from _functions(node)
        else:
            yield from _functions(node, f"{node.name}." if isinstance(node, ast.ClassDef) else prefix)


def _decoding() -> Iterator[str]:
    """`path:name` of every function that decodes."""
    for package in ("events", "services"):
        for path in sorted((ROOT / package).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            if "/memory" in place or place.startswith("services/cli/"):
                continue  # the fakes, and what the command line prints
            text = path.read_text()
            for name, function in _functions(ast.parse(text)) if MAY_DECODE.search(text) else ():
                calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
                if any(DECODES.fullmatch(ast.unparse(call.func)) for call in calls):
                    yield f"{place}:{name}"


def test_every_decoder_is_in_the_register() -> None:
    """A new one brings its entry in tests/fuzz/register.py, or in `OWN` the reason why nobody else writes its bytes."""
    covered = {place for decoder in DECODERS for place in decoder.covers} | set(BY_SERVERS)
    assert set(_decoding()) - covered - set(OWN) == set()


def test_the_register_names_what_is_there() -> None:
    """No entry for a function that is gone."""
    named = {place for decoder in DECODERS for place in decoder.covers} | set(BY_SERVERS) | set(OWN)
    for place in sorted(named):
        path, _, name = place.partition(":")
        tree = ast.parse((ROOT / path).read_text())
        assert name in {found for found, _ in _functions(tree)}, place
    assert len({decoder.name for decoder in DECODERS}) == len(DECODERS)


def test_every_decoding_expects_what_it_can_raise() -> None:
    """A bare `except msgspec.DecodeError` around it lets out UnicodeDecodeError and RecursionError."""
    found = []
    for package in ("events", "services"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                place = str(path.relative_to(ROOT))
                if place in ALONE:
                    continue
                if isinstance(node, ast.Try) and _decodes_raw(node) and not _expects_malformed(node):
                    found.append(f"{place}:{node.lineno}")
    assert found == []


def _decodes_raw(node: ast.Try) -> bool:
    """Whether msgspec itself is called in it; `go_json.decode` has one error for all."""
    calls = (inner for part in node.body for inner in ast.walk(part) if isinstance(inner, ast.Call))
    raw = re.compile(r"msgspec\.(?:json|msgpack)\.decode|_[A-Z_]+\.decode|_decoder\(.*\)\.decode")
    return any(raw.fullmatch(ast.unparse(call.func)) for call in calls)


def _expects_malformed(node: ast.Try) -> bool:
    texts = [ast.unparse(handler.type) for handler in node.handlers if handler.type is not None]
    all_of_them = {"RecursionError", "UnicodeDecodeError"}
    return any("MALFORMED" in text for text in texts) or all(any(one in text for text in texts) for one in all_of_them)
