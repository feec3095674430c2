"""Attacks on secrets: in process lists, environments, logs, image layers and files, by a user of the host without rights."""

from __future__ import annotations

import json
import os
import stat

from bench.attacks.register import Result, attack
from bench.attacks.stage import SERVICES, Stage


def _secrets(stage: Stage) -> dict[str, str]:
    """Every secret of the stack, by the file that has it."""
    found = {}
    for path in (stage.data / "secrets").rglob("*"):
        if path.is_file() and path.name in ("redis_url", "redis_password", "registry_pull_key"):
            text = path.read_text().strip()
            found[str(path)] = text.rpartition("@")[0].rpartition(":")[2] if "://" in text else text
    return found


def _leaks(stage: Stage, text: str) -> Result:
    leaked = [path for path, secret in _secrets(stage).items() if secret and secret in text]
    return Result(bool(leaked), f"{len(text)} characters looked through; leaked: {leaked}")


@attack
def read_secrets_in_environments_and_command_lines(stage: Stage) -> Result:
    """`docker inspect` and `docker top` of every container."""
    names = stage.docker("ps", "--format", "{{.Names}}").split()
    text = stage.docker("inspect", *names) + "".join(stage.docker("top", name, "-eo", "pid,args") for name in names)
    return _leaks(stage, text)


@attack
def read_secrets_in_logs(stage: Stage) -> Result:
    """What every service wrote so far."""
    done = [stage.run("docker", "logs", f"cyroid-images-{name}-1") for name in SERVICES]
    return _leaks(stage, "".join((one.stdout + one.stderr).decode(errors="replace") for one in done))


@attack
def read_secrets_in_images(stage: Stage) -> Result:
    """History, labels, environment of the images that ranges and services run."""
    images = ["cyroid/images:latest", "cyroid/range:28.5"]
    history = "".join(stage.docker("history", "--no-trunc", image) for image in images)
    return _leaks(stage, stage.docker("image", "inspect", *images) + history)


@attack
def read_secrets_by_the_command_line(stage: Stage) -> Result:
    """What the tools print of settings, doctor and events."""
    words = (["settings"], ["doctor", "--json"], ["events", "groups"], ["ranges", "ls", "--json"])
    return _leaks(stage, "".join(stage.cyroid(*one) for one in words))


@attack
def read_the_data_folder_as_somebody_else(stage: Stage) -> Result:
    """Another user of the host opens every secret that lies there."""
    open_to_all = [
        str(path)
        for path in (stage.data / "secrets").rglob("*")
        if path.is_file() and (stat.S_IMODE(path.stat().st_mode) & 0o077 or _way_is_open(path.parent, stage))
    ]
    return Result(bool(open_to_all), f"readable by others: {open_to_all}")


def _way_is_open(folder: os.PathLike[str], stage: Stage) -> bool:
    """Whether others may look into the folder, and so learn names."""
    return bool(stat.S_IMODE(os.stat(folder).st_mode) & 0o007)


@attack
def read_secrets_of_others_in_a_range(stage: Stage) -> Result:
    """All files and environments of the attacker's container: its own secret is the only one there."""
    script = "cat /proc/[0-9]*/environ /run/cyroid/* /etc/docker/* /run/range/* 2>/dev/null; env; grep -r -a -s redis /etc /opt/cyroid/lib/python3*/site-packages/services /root | head -c 1000000"
    text = stage.shell(script).stdout.decode(errors="replace")
    own = f"ranges/{stage.attacker}/"
    leaked = [path for path, secret in _secrets(stage).items() if secret in text and own not in path]
    return Result(bool(leaked), json.dumps(leaked))
