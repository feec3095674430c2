"""Links and commands of README.md, the other documents in this folder, and docs/.

Every command of a code block, and every inline command of this project, is checked. The command line parses those of
`cyroid-images`, and their `--help` is run; `make -n` takes those of `make`; the parsers of `bench` and `deploy` take
theirs; requests of `curl` are looked up in the table of routes. `ELSEWHERE` lists the rest, with the test that runs it.
"""

from __future__ import annotations

import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from deploy.stack import ranges as stack_ranges
from events.streams import Streams
from services.api.routes import ROUTES
from services.cli import main
from services.core.deployments.index import DeploymentKeys

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = ("cyroid-images", "make", "curl", "redis-cli", "docker", "pip", "uv", ".venv/bin/python", "python")
INLINE = re.compile(
    r"`((?:\.venv/bin/)?(?:cyroid-images|python -m|python) [^`\n]+|make [^`\n]+|(?:scripts|\.ci)/[^`\n]+)`"
)
#: Commands that no parser of this project checks → what runs them, or something like them.
ELSEWHERE = {
    "python -m deploy.container.host_link": "tests/integration/stack/test_host_link.py",
    ".venv/bin/python -m deploy.stack.hosts": "tests/unit/deploy/stack/test_hosts.py",
    "python -m deploy.stack.certificates": "tests/integration/stack/test_host_link.py",
    "python -m deploy.container.redis_users": "tests/integration/events/test_failover.py",
    "redis-cli -h": "tests/integration/events/test_plain_publisher.py",
    "docker exec RANGE docker rmi": "tests/stack/test_story.py",
    "docker logs --follow cyroid-images-deployer-1": "tests/unit/test_compose.py",
    "pip install uv": "requirements.lock",
    "uv pip compile": "requirements.lock",
    ".venv/bin/python -m pytest FILE": "scripts/check",
    "docker compose exec registry registry garbage-collect": "tests/integration/collector/test_without_storage.py",
    "docker compose stop registry-pusher": "tests/unit/test_compose.py",
    "docker compose restart registry && docker compose start registry-pusher": "tests/unit/test_compose.py",
}


def commands_of(page: Path) -> Iterator[str]:
    """Commands of code blocks and inline ones, without comments; continued lines are one."""
    text = page.read_text()
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#\s.*$", "", line.strip().removeprefix("$ "))
            if command.split(" ")[0].removeprefix(".venv/bin/") in {
                name.removeprefix(".venv/bin/") for name in PROGRAMS
            }:
                yield command
    for command in INLINE.findall(FENCE.sub("", text)):
        yield command


ALL = sorted({(str(page.relative_to(ROOT)), command) for page in PAGES for command in commands_of(page)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link, and each `docs/…` that a page names, is a file that there is."""
    text = FENCE.sub("", page.read_text())
    links = [link for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) if not re.match(r"\w+:", link)]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"\b(?:docs|tests|deploy|scripts|dind|bench)/[\w./-]+\.(?:md|py|yml|svg|json)\b", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_commands_were_found() -> None:
    """The search sees what a reader sees."""
    assert len(ALL) > 50
    assert {page for page, _ in ALL} >= {"README.md", "CONTRIBUTING.md", "docs/publishing.md", "docs/measurements.md"}


@pytest.mark.parametrize(("page", "command"), ALL, ids=lambda text: text[:60])
def test_a_command_is_one_there_is(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program takes its words; a command that cannot be tried here names the test that runs it."""
    elsewhere = [test for start, test in ELSEWHERE.items() if command.startswith(start)]
    if elsewhere:
        assert all((ROOT / test).exists() for test in elsewhere)
        return
    words = shlex.split(command)
    if words[:2] == ["docker", "exec"] and words[2].startswith("cyroid-images-"):
        words = words[3:]
    match words:
        case ["make", *rest]:
            subprocess.run(["make", "-n", *rest], cwd=ROOT, check=True, capture_output=True)
        case ["cyroid-images" | ".venv/bin/cyroid-images", *rest]:
            (tmp_path / "web").mkdir()
            (tmp_path / "disk.tar").touch()
            monkeypatch.chdir(tmp_path)
            takes(rest)
        case ["curl", *rest]:
            requests(rest)
        case ["redis-cli", *rest]:
            reads(rest)
        case [".venv/bin/python" | "python", "-m", "bench", *rest]:
            parses(rest)
        case [".venv/bin/python", "-m", "deploy.stack.ranges", verb, *rest]:
            shows_help(lambda: stack_ranges.main([verb, "--help"]), rest)
        case [script, *_]:
            assert (ROOT / script).is_file(), f"{page}: nothing checks `{command}`"


def takes(words: list[str]) -> None:
    """The command line parses the words, with a name for each placeholder, and has a help text for the command."""
    words = [re.sub(r"[…\[\]]", "", word) for word in words]
    path, rest, command = list[str](), words, click.Command("none")
    group: click.Command = main
    while isinstance(group, click.Group) and rest:
        name = rest[0].split("|")[0]
        found = group.get_command(click.Context(group), name)
        assert found is not None, f"{' '.join([*path, name])} is no command"
        path, rest, group = [*path, name], rest[1:], found
    command = group
    if rest and not isinstance(command, click.Group):
        command.make_context(path[-1], list(rest))
    helped = CliRunner().invoke(main, [*path, "--help"])
    assert helped.exit_code == 0
    assert "Usage:" in helped.output


def requests(words: list[str]) -> None:
    """A route has the path and takes the body."""
    (url,) = (word for word in words if word.startswith("$API"))
    assert "-d" not in words, "--json also sends the content type, without which a body is refused"
    body = words[words.index("--json") + 1] if "--json" in words else None
    method, path = "POST" if body else "GET", url.removeprefix("$API")
    fitting = [
        route
        for route in ROUTES
        if route.method == method and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", route.path), path)
    ]
    assert fitting, f"{method} {path}"
    if body is not None:
        msgspec.json.decode(body, type=fitting[0].body)


def reads(words: list[str]) -> None:
    """The key is one that this system writes."""
    command, key, *_ = words
    streams = Streams("cyroid")
    known = {streams.images, streams.deployments, streams.outbox("range-7"), streams.dead}
    assert (command in {"XRANGE", "XREVRANGE"} and key in known) or (
        command == "HGET" and key == DeploymentKeys("cyroid").record("ID").name
    )


def parses(words: list[str]) -> None:
    """The bench case is there and knows the flags; `CASE` stands for any."""
    if not words or words[0] == "CASE":
        return
    case = importlib.import_module(f"bench.{words[0]}.case")
    shows_help(lambda: case.main(["--help"]), [word for word in words[1:] if word != "--json"])


def shows_help(run: Callable[[], object], words: list[str]) -> None:
    """`--help` ends well and names each flag."""
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 0
    assert [word for word in words if word.startswith("--") and word not in out.getvalue()] == []
