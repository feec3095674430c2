"""HTTP clients that request deployments, lose the answer, and repeat the request with the same id."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable

from deploy.machine.commands import MachineError

#: What a client that got no answer tries again until then.
TRY_AGAIN_SECONDS = 60.0
_ANSWER_SECONDS = 20.0


class Posts:
    """`wanted`: range id by deployment id. `begin` sends each once; `repeat` sends what has no answer again."""

    def __init__(self, address: str, wanted: dict[str, str], image: str) -> None:
        self._address = address
        self._wanted = wanted
        self._image = image
        self._accepted: set[str] = set()
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """Send all at the same time, without waiting for an answer."""
        for deployment_id in self._wanted:
            thread = threading.Thread(target=self._try, args=(deployment_id,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def lost(self) -> int:
        """How many got no answer, once all connections have ended."""
        for thread in self._threads:
            thread.join(_ANSWER_SECONDS)
        return len(self._wanted) - len(self._accepted)

    def repeat(self, wait: Callable[[Callable[[], bool], float], bool]) -> None:
        """As a client does: until each is accepted. Raises MachineError when the api takes them no more."""

        def again() -> bool:
            for deployment_id in self._wanted.keys() - self._accepted:
                self._try(deployment_id)
            return len(self._accepted) == len(self._wanted)

        if not wait(again, TRY_AGAIN_SECONDS):
            raise MachineError(
                f"the api at {self._address} accepted {len(self._accepted)} of {len(self._wanted)} requests"
            )

    def _try(self, deployment_id: str) -> None:
        host, _, port = self._address.rpartition(":")
        body = {"deployment_id": deployment_id, "range_id": self._wanted[deployment_id], "images": [self._image]}
        connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
        try:
            connection.request("POST", "/api/v1/deployments", json.dumps(body), {"Content-Type": "application/json"})
            if connection.getresponse().status == 202:
                self._accepted.add(deployment_id)
        except (OSError, http.client.HTTPException):
            return  # no answer: nobody knows whether it was heard
        finally:
            connection.close()
