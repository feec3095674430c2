"""Virtual environment of the other libraries: in the user's cache, made when it is first needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

#: What is compared, and what it runs on.
PINS = ("faststream[redis]==0.7.8", "streaq==7.2.0", "redis==8.1.0", "coredis==6.9.0", "hiredis==3.5.0")
INSTALL_SECONDS = 300


def python() -> Path:
    """The interpreter of that environment. Raises CalledProcessError if pip cannot install."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(" ".join((sys.version, *PINS)).encode()).hexdigest()[:12]
    folder = cache / "cyroid-bench" / f"peers-{name}"
    interpreter = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run(
            [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PINS],
            check=True,
            stdout=sys.stderr,
            timeout=INSTALL_SECONDS,
        )
        (folder / "complete").touch()
    return interpreter
