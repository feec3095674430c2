"""`python -m deploy.lab`: fetches what a laboratory needs from the network, so that it needs none when it is opened."""

from __future__ import annotations

import sys

from deploy.machine.base_image import base_image_tar
from deploy.machine.cache import default_cache
from deploy.machine.commands import MachineError


def main() -> int:
    try:
        base_image_tar(default_cache())
    except (MachineError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
