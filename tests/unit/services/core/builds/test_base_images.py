"""Names that a Dockerfile takes content from."""

from __future__ import annotations

import pytest

from services.core.builds.base_images import base_images


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("FROM web:1\nRUN x\n", ["docker.io/library/web:1"]),
        (
            "from team/web as Built\nFROM built\nCOPY --from=BUILT a b\nCOPY --from=0 a b\n",
            ["docker.io/team/web:latest"],
        ),
        ("FROM scratch\nCOPY --chown=1 --from=tool:2 /a /a\n", ["docker.io/library/tool:2"]),
        ("ARG V=1\nARG N=web\nFROM --platform=linux/amd64 ${N}:$V\n", ["docker.io/library/web:7"]),
        ("ARG N\nFROM ${N:-web}:${V:-3}${X:+-x}\nARG N=other\nFROM $N\n", ["docker.io/library/web:3"]),
        ("FROM \\\n  web:1 \\\n  AS a\nFROM web:1\n", ["docker.io/library/web:1"]),
        ("FROM\nFROM $NOBODY\nFROM Not/A:Name!\nCOPY --from a b\n", []),
    ],
)
def test_bases_are_named_in_full(content: str, found: list[str]) -> None:
    """With the build's own arguments; stages, and what nobody can name, are left out."""
    assert list(base_images(content, {"V": "7"} if "V=1" in content else {})) == found
