"""The page's files: their headers, their policy, and that vendored scripts are what their packages have."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from services.api.page_files import FOLDER, content_security_policy, page_files, version_of
from tests.unit.services.api.site import Service

VENDOR = FOLDER / "vendor"


async def test_the_page_is_sent_with_a_policy_that_lets_nothing_else_in(service: Service) -> None:
    """Scripts, styles, images and requests are its own server's alone, and nobody may frame it."""
    async with service.client.get("/") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/html"
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'"
    )
    assert policy.endswith("frame-ancestors 'none'")
    assert "unsafe" not in policy


async def test_a_file_that_did_not_change_is_not_sent_again(service: Service) -> None:
    """The browser shows its ETag; a compressed answer has the same."""
    async with service.client.get("/page/app.js") as first:
        assert first.headers["Content-Encoding"] == "gzip"
        assert (await first.text()).startswith("// The page")
    async with service.client.get("/page/app.js", headers={"If-None-Match": first.headers["ETag"]}) as again:
        assert (again.status, await again.read()) == (304, b"")


async def test_a_file_is_kept_for_as_long_as_its_address(service: Service) -> None:
    """The address changes with any file; what another version is asked for is not kept."""
    async with service.client.get("/") as answer:
        assert answer.headers["Cache-Control"] == "no-cache"
        (script,) = re.findall(r'src="(page/[0-9a-f]{16})/app.js"', text := await answer.text())
        assert text.count('"page/') == text.count(f'"{script}/')
    for path, kept in (
        (f"{script}/app.js", "max-age=31536000, immutable"),
        ("page/0123456789abcdef/app.js", "no-cache"),
        ("page/app.js", "no-cache"),
    ):
        async with service.client.get(f"/{path}") as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, kept)
    async with service.client.get(f"/{script}/index.html") as answer:
        assert answer.status == 404
    files = page_files()
    changed = {**files, "app.js": files["net.js"]}
    assert version_of(files) != version_of(changed)


def _imports(name: str) -> set[str]:
    """The modules that one needs before it runs, itself too."""
    text = (FOLDER / name).read_text()
    folder = Path(name).parent
    named = {(folder / one).as_posix() for one in re.findall(r'^import .* from ?"\./(.*?)";', text, re.MULTILINE)}
    named |= {(folder / one).as_posix() for one in re.findall(r'^import\{.*?from"\./(.*?)";', text)}
    return {name} | {each for one in named for each in _imports(one)}


def test_what_the_first_drawing_needs_is_asked_for_at_once() -> None:
    """The modules of the page and of its first tab, none of which waits until another one was read."""
    preloaded = set(re.findall(r'rel="modulepreload" href="page/(.*?)"', (FOLDER / "index.html").read_text()))
    assert preloaded == (_imports("app.js") | _imports("registry.js")) - {"app.js"}


@pytest.mark.parametrize("name", ["nothing.js", "../routes.py", "%2e%2e/routes.py", "vendor/README.md", "index.html"])
async def test_only_the_pages_files_are_served(service: Service, name: str) -> None:
    """Whatever the path looks like."""
    async with service.client.get(f"/page/{name}") as answer:
        assert answer.status == 404
        assert answer.content_type == "application/problem+json"


def test_a_setting_says_who_may_frame_it() -> None:
    """For CYROID's own pages."""
    policy = content_security_policy("self, https://cyroid.example")
    assert policy.endswith("frame-ancestors 'self' https://cyroid.example")


def test_every_url_of_the_page_is_relative() -> None:
    """So that it works wherever a proxy shows it; and none names another server."""
    for name, file in page_files().items():
        text = file.content.decode()
        if not name.startswith("vendor/"):
            assert not re.search(r"""(href|src|from|fetch\()\s*=?\s*["'`(]\s*/""", text), name
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"\beval\(|new Function|dangerouslySetInnerHTML=|\.innerHTML *=", text) or "vendor" in name


def test_vendored_scripts_are_those_of_their_packages() -> None:
    """By the hashes in the folder's README, after the one change that it names is undone."""
    rows = re.findall(r"^\| (\S+\.js) \|.*\| ([0-9a-f]{64}) \|$", (VENDOR / "README.md").read_text(), re.MULTILINE)
    assert {name for name, _ in rows} == {path.name for path in VENDOR.glob("*.js")}
    for name, digest in rows:
        content = (VENDOR / name).read_bytes().replace(b'from"./preact.js"', b'from"preact"')
        assert hashlib.sha256(content).hexdigest() == digest, name
    assert (VENDOR / "preact.LICENSE").exists()
    assert (VENDOR / "htm.LICENSE").exists()
