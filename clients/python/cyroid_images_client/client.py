"""HTTP client of the API: one connection for each request, in a thread, so that any event loop may use it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

ANSWER_SECONDS = 60.0
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024


class ApiError(Exception):
    """The API refused a request, or did not answer. `code` is stable (docs/errors.md), `status` 0 without an answer."""

    def __init__(self, message: str, *, code: str, status: int = 0, retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retryable = retryable


class ApiClient:
    """Requests to one API. Without arguments as the environment says."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        parts = urlsplit(url or os.environ.get("CYROID_IMAGES_API") or "http://127.0.0.1:8070")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("the API's address is http://HOST:PORT: set CYROID_IMAGES_API")
        self._parts = parts
        self._token = token

    async def get(self, path: str, **query: str | int | bool) -> Any:
        """The answer's JSON. Raises ApiError."""
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
        return await self._ask("GET", f"{path}?{urlencode(words)}" if words else path, None, {})

    async def post(self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None) -> Any:
        """Send a command. The same `key` again makes no second one. Raises ApiError."""
        return await self._ask("POST", path, dict(body or {}), {"Idempotency-Key": key} if key else {})

    async def delete(self, path: str) -> Any:
        """Raises ApiError."""
        return await self._ask("DELETE", path, None, {})

    async def _ask(self, method: str, path: str, body: object, headers: Mapping[str, str]) -> Any:
        return await asyncio.to_thread(self._request, method, path, body, dict(headers))

    def _request(self, method: str, path: str, body: object, headers: dict[str, str]) -> Any:
        connect = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(self._parts.hostname or "", self._parts.port, timeout=ANSWER_SECONDS)
        headers["Accept"] = "application/json"
        token = self._token or _token()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body), "application/json"
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, content, headers)
            answer = connection.getresponse()
            text = answer.read(ANSWER_LIMIT_BYTES + 1)
        except (OSError, http.client.HTTPException) as problem:
            raise ApiError(f"the API does not answer: {problem}", code="api_unavailable", retryable=True) from problem
        finally:
            connection.close()
        if len(text) > ANSWER_LIMIT_BYTES:
            raise ApiError("the API's answer is too large", code="bad_answer", status=answer.status)
        return _decoded(answer.status, text)


def path_of(*parts: str) -> str:
    """A path below /api/v1; slashes inside a part stay, as in image references."""
    return "/api/v1/" + "/".join(quote(part, safe="/:@") for part in parts)


def _token() -> str:
    """Of the environment, or of the file that it names."""
    file = os.environ.get("CYROID_IMAGES_TOKEN_FILE")
    return Path(file).read_text().strip() if file else os.environ.get("CYROID_IMAGES_TOKEN", "")


def _decoded(status: int, text: bytes) -> Any:
    try:
        found = json.loads(text) if text else None
    except ValueError as problem:
        raise ApiError("the API's answer is no JSON", code="bad_answer", status=status) from problem
    if status < 400:
        return found
    problem_document = found if isinstance(found, dict) else {}
    raise ApiError(
        str(problem_document.get("detail") or f"the API answered {status}"),
        code=str(problem_document.get("code") or "error"),
        status=status,
        retryable=bool(problem_document.get("retryable")),
    )
