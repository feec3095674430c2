"""Options of a build, by the names of `docker buildx build`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Builder = Literal["auto", "buildkit", "classic"]
Network = Literal["default", "none", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """`--file`, `--target`, `--build-arg`, `--label`, `--secret`, `--cache-from`, `--platform`, `--network` and so on.

    builder       `auto` is BuildKit, but where the engine's own configuration turns it off
    secrets       content by id; BuildKit alone has them
    cache_from    images to take steps from
    inline_cache  `--cache-to type=inline`: write into the image what `cache_from` needs
    """

    dockerfile: str = "Dockerfile"
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    cache_from: Sequence[str] = ()
    inline_cache: bool = False
    platform: str | None = None
    network: Network = "default"
    pull: bool = False
    no_cache: bool = False
    builder: Builder = "auto"

    def needs_buildkit(self) -> list[str]:
        """What of these the classic builder does not have."""
        needs = [f"secret {name}" for name in self.secrets]
        return [*needs, "cache-to type=inline"] if self.inline_cache else needs
