"""A range gets what an engine needs, and nothing that leads out of it."""

from __future__ import annotations

import json

import pytest

from deploy.machine.commands import MachineError
from deploy.stack import nested

#: With each of these root in a range reaches the host's files, memory, modules, clock or log.
NEVER = {
    *("ALL", "BPF", "DAC_READ_SEARCH", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "PERFMON", "SYS_BOOT"),
    *("SYS_MODULE", "SYS_PACCT", "SYS_RAWIO", "SYS_TIME", "SYSLOG"),
}


def test_no_capability_is_given_that_opens_the_host() -> None:
    """All are taken away, and those that an engine needs are given by name."""
    assert nested.OPTIONS[:2] == ("--cap-drop", "ALL")
    given = {value for option, value in zip(nested.OPTIONS, nested.OPTIONS[1:], strict=False) if option == "--cap-add"}
    assert given == set(nested.CAPABILITIES)
    assert not given & NEVER
    assert "--privileged" not in nested.OPTIONS


def test_the_filter_refuses_what_no_container_of_a_range_needs() -> None:
    """Opening files by number, modules, another kernel, the clock: refused for the engine's own containers as well."""
    profile = json.loads(nested.SECCOMP.read_text())
    (rule,) = profile["syscalls"]
    assert {"open_by_handle_at", "init_module", "finit_module", "kexec_load", "settimeofday"} <= set(rule["names"])
    assert (profile["defaultAction"], rule["action"]) == ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO")


def test_the_options_are_tried_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that refuses them says why."""
    tried: list[tuple[str, ...]] = []

    def docker(*words: str, seconds: float) -> str:
        tried.append(words)
        return ""

    monkeypatch.setattr(nested, "docker", docker)
    assert nested.nested_options("range:1") == nested.OPTIONS
    assert tried[0][-1] == "range:1"

    def refuses(*words: str, seconds: float) -> str:
        raise MachineError("unable to apply caps")

    monkeypatch.setattr(nested, "docker", refuses)
    with pytest.raises(MachineError, match="unable to apply caps"):
        nested.nested_options("range:1")
