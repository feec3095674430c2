"""Guard around callers' progress callbacks: one that raises is logged, not called again, and stops no work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ParamSpec

log = logging.getLogger("cyroid_images_client")
P = ParamSpec("P")


def guarded(callback: Callable[P, object] | None) -> Callable[P, None]:
    """The callback, guarded; one that does nothing where there is none."""
    left = [callback] if callback is not None else []

    def call(*arguments: P.args, **named: P.kwargs) -> None:
        for one in list(left):
            try:
                one(*arguments, **named)
            except Exception:  # the caller's own code: any error, and none may end the transfer
                left.clear()
                log.exception("a progress callback failed; it is not called again")

    return call
