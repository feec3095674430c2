"""What a container needs so that an engine runs in it, as this machine allows it.

`--privileged` asks for every capability there is; a machine that itself lacks one refuses such a container at its
start. All capabilities but that one are enough for a nested engine, with the control groups mounted for writing.
"""

from __future__ import annotations

from pathlib import Path

from deploy.lab.commands import LabError
from deploy.stack.plugins import docker

ROOT = Path(__file__).parents[2]
OVERRIDE = ROOT / "deploy/compose.nested.yml"
PRIVILEGED = ("--privileged",)
LESS = (
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
    *("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"),
)


def nested_options(image: str) -> tuple[str, ...]:
    """Options of `docker run` for a range, found out by starting `image` for a moment. Raises LabError."""
    problems = []
    for options in (PRIVILEGED, LESS):
        try:
            docker("run", "--rm", "--network", "none", *options, "--entrypoint", "/bin/true", image, seconds=120)
        except LabError as problem:
            problems.append(str(problem))
        else:
            return options
    raise LabError("this machine allows no nested engine:\n" + "\n".join(problems))
