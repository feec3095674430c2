"""The folder in which downloads are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Where downloads are kept between runs: `IMAGES_LAB_CACHE`, else `~/.cache/cyroid-images`."""
    return Path(os.environ.get("IMAGES_LAB_CACHE") or Path.home() / ".cache" / "cyroid-images")
