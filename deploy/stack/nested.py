"""Container options that a nested engine needs, and nothing beyond them.

Not `--privileged`, which gives every capability and every device. These are the capabilities of an ordinary container,
which the engine hands on to those in the range, and three that it needs itself: SYS_ADMIN for mounts and namespaces,
NET_ADMIN for bridges and rules, SYS_PTRACE for looking at its containers' namespaces. What is in no container of the
range, whatever it asks its engine for: DAC_READ_SEARCH (`open_by_handle_at` opens files of the host's by number),
SYS_MODULE, SYS_RAWIO, LINUX_IMMUTABLE, SYS_BOOT, SYS_TIME, SYSLOG, BPF, PERFMON, MAC_ADMIN and the rest. A
filter (`deploy/range-seccomp.json`) refuses the system calls as well; it is inherited and cannot be taken off. The
control groups are those of a namespace of the range's own, so that there is no way up and no release agent.
"""

from __future__ import annotations

from pathlib import Path

from deploy.machine.commands import MachineError
from deploy.stack.plugins import docker

ROOT = Path(__file__).parents[2]
SECCOMP = ROOT / "deploy/range-seccomp.json"
CAPABILITIES = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
)
OPTIONS = (
    *("--cap-drop", "ALL"),
    *(word for name in CAPABILITIES for word in ("--cap-add", name)),
    *("--cgroupns", "private"),
    *("--security-opt", f"seccomp={SECCOMP}"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
)


def nested_options(image: str) -> tuple[str, ...]:
    """Options of `docker run` for a range, tried by starting `image` for a moment. Raises MachineError."""
    try:
        docker("run", "--rm", "--network", "none", *OPTIONS, "--entrypoint", "/bin/true", image, seconds=120)
    except MachineError as problem:
        raise MachineError(f"this machine allows no nested engine:\n{problem}") from problem
    return OPTIONS
