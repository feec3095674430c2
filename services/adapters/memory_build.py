"""Builder of the fake engine: enough of Dockerfile to make real layers out of a context.

FROM, COPY and ADD of files, RUN (its command is not run: it leaves a file that names it; `false` and `exit N` fail),
and the instructions that change the config only.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.adapters.memory_archives import tar_of
from services.core.builds.dockerfile import needs_buildkit
from services.core.builds.options import BuildOptions
from services.errors import BuildFailed

_CONFIG_ONLY = {"ENV", "CMD", "ENTRYPOINT", "WORKDIR", "USER", "EXPOSE", "ARG", "LABEL", "VOLUME", "MAINTAINER"}


@dataclass(slots=True)
class Built:
    """What a Dockerfile comes to: the base it names, layers to put on it, changes of the config, a log."""

    base: str = ""
    layers: list[bytes] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


def run_dockerfile(context: Mapping[str, bytes], options: BuildOptions) -> Built:
    """Raises BuildFailed with the engine's words for a missing Dockerfile, base, file, or a failing command."""
    if options.dockerfile not in context:
        raise BuildFailed(f"build: Cannot locate specified Dockerfile: {options.dockerfile}")
    text = context[options.dockerfile].decode()
    needs = (
        [*options.needs_buildkit(), *needs_buildkit(text, options.build_args)] if options.builder == "classic" else []
    )
    if needs:
        raise BuildFailed(f"build: the classic builder cannot do {'; '.join(needs)}", code="needs_buildkit")
    built = Built()
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    steps = [line for line in lines if line and not line.startswith("#")]
    for number, written in enumerate(steps, start=1):
        step = written
        for name, value in options.build_args.items():
            step = step.replace(f"${{{name}}}", value).replace(f"${name}", value)
        built.log.append(f"Step {number}/{len(steps)} : {step}")
        _step(built, context, step)
    if not built.base:
        raise BuildFailed("build: no build stage in current context: a Dockerfile begins with FROM")
    return built


def _step(built: Built, context: Mapping[str, bytes], step: str) -> None:
    word, _, rest = step.partition(" ")
    word = word.upper()
    if word == "FROM":
        built.base = rest.split()[0]
    elif word in {"COPY", "ADD"}:
        *sources, target = shlex.split(rest)
        built.layers.append(tar_of(_copied(context, sources, target)))
    elif word == "RUN":
        if rest.strip() == "false" or rest.strip().startswith("exit "):
            raise BuildFailed(f"build: The command '/bin/sh -c {rest}' returned a non-zero code: 1")
        built.layers.append(tar_of({f"ran/{len(built.layers)}": rest.encode()}))
    elif word in _CONFIG_ONLY:
        built.settings.append(step)
    else:
        raise BuildFailed(f"build: dockerfile parse error: unknown instruction: {word}")


def _copied(context: Mapping[str, bytes], sources: list[str], target: str) -> dict[str, bytes]:
    copied = {}
    for source in sources:
        prefix = posixpath.normpath(source)
        for name, content in context.items():
            if name == prefix:
                into = posixpath.join(target, posixpath.basename(name)) if target.endswith(("/", ".")) else target
            elif prefix == "." or name.startswith(prefix + "/"):
                into = posixpath.join(target, name if prefix == "." else name[len(prefix) + 1 :])
            else:
                continue
            copied[posixpath.normpath(into).lstrip("/")] = content
        if not copied:
            raise BuildFailed(f"build: COPY failed: file not found in build context: {source}")
    return copied


def new_config(base: Mapping[str, Any] | None, built: Built, diff_ids: list[str], labels: Mapping[str, str]) -> Any:
    """The image config that the engine would write: the base's, with what was added."""
    # Any: an image config is a JSON document of others.
    config: dict[str, Any] = dict(base or {"architecture": "amd64", "os": "linux", "config": {}})
    old = (base or {}).get("rootfs", {}).get("diff_ids", [])
    config["rootfs"] = {"type": "layers", "diff_ids": [*old, *diff_ids]}
    config["config"] = {**config.get("config", {}), "Labels": dict(labels), "Steps": built.settings}
    config["history"] = [*config.get("history", []), *({"created_by": step} for step in built.log)]
    return config
