"""`python -m deploy.lab`: make what a laboratory needs from the network, so that it needs none when it is opened."""

from __future__ import annotations

import sys

from deploy.lab.base_image import base_image_tar
from deploy.lab.commands import LabError
from deploy.lab.laboratory import default_cache


def main() -> int:
    try:
        base_image_tar(default_cache())
    except (LabError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
