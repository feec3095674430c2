"""The laboratory (`deploy.lab`), on which every other real test is based."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.lab import Lab, engine_server
from deploy.lab.laboratory import marked_processes
from deploy.machine.commands import MachineError
from deploy.machine.polling import poll

pytestmark = pytest.mark.real


def mounts_below(folder: Path) -> list[str]:
    """Mount points below `folder`."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {folder}/" in line]


def test_an_image_built_here_is_pulled_by_a_range(tmp_path: Path) -> None:
    """A RUN step works without any network, and a second engine gets the result through the registry."""
    with Lab(tmp_path / "lab") as lab:
        registry, host, range_one = lab.registry(), lab.engine("host"), lab.engine("range")
        host.docker("import", str(lab.base_image_tar()), "base:1")
        name = f"{registry.address}/greeting"
        host.docker("build", "-t", name, "-", stdin="FROM base:1\nRUN echo hello > /greeting\n")
        host.docker("push", name)
        range_one.docker("pull", name)
        assert range_one.docker("run", "--rm", name, "cat", "/greeting") == "hello\n"


@pytest.mark.parametrize(
    ("version", "containerd_store"), [("26.1", False), ("26.1", True), ("28.5", False), ("28.5", True)]
)
def test_newer_engines_pull_build_and_run(tmp_path: Path, version: str, containerd_store: bool) -> None:
    """An engine of the version asked for, with the store asked for, works as the machine's own does."""
    with Lab(tmp_path / "lab") as lab:
        registry = lab.registry()
        newer = lab.engine("newer", version=version, containerd_store=containerd_store)
        said = newer.docker("info", "--format", "{{.ServerVersion}} {{json .DriverStatus}}")
        assert said.startswith(version)
        assert ("io.containerd.snapshotter" in said) == containerd_store
        newer.docker("import", str(lab.base_image_tar()), "base:1")
        name = f"{registry.address}/greeting"
        newer.docker("build", "-t", name, "-", stdin="FROM base:1\nRUN echo hello > /greeting\n")
        newer.docker("push", name)
        newer.docker("rmi", "--force", name)
        newer.docker("pull", name)
        assert newer.docker("run", "--rm", name, "cat", "/greeting") == "hello\n"


def test_another_engines_network_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a docker0 exists the engine gets no capability to change networks, and still builds and pulls."""
    monkeypatch.setattr(engine_server, "DOCKER0", Path("/sys/class/net/lo"))
    with Lab(tmp_path / "lab") as lab:
        registry, engine = lab.registry(), lab.engine()
        status = Path(f"/proc/{engine.pid}/status").read_text()
        bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd"))
        net_admin = 1 << 12
        assert not bounding & net_admin
        engine.docker("import", str(lab.base_image_tar()), "base:1")
        name = f"{registry.address}/greeting"
        engine.docker("build", "-t", name, "-", stdin="FROM base:1\nRUN echo hello > /greeting\n")
        engine.docker("push", name)
        engine.docker("rmi", name)
        engine.docker("pull", name)
        assert engine.docker("run", "--rm", name, "cat", "/greeting") == "hello\n"


def test_a_killed_server_comes_back_with_its_data_at_its_address(tmp_path: Path) -> None:
    """Kill and start keep data and address; a paused server does not answer."""
    with Lab(tmp_path / "lab") as lab:
        engine, registry = lab.engine(), lab.registry()
        engine.docker("import", str(lab.base_image_tar()), "base:1")
        url, address = engine.url, registry.address
        for server in (engine, registry):
            server.kill()
            assert not server.answers()
            server.start()
        assert (engine.url, registry.address) == (url, address)
        assert "base" in engine.docker("images")
        engine.pause()
        assert not engine.answers()
        engine.resume()
        assert poll(engine.answers, seconds=15)


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After the block: no process, no mount, no folder, though a container still ran."""
    folder = tmp_path / "lab"
    with Lab(folder) as lab:
        engine = lab.engine()
        engine.docker("import", str(lab.base_image_tar()), "base:1")
        engine.docker("run", "-d", "base:1", "/bin/sleep", "600")
        assert marked_processes(folder)
    assert not marked_processes(folder)
    assert not mounts_below(folder)
    assert not folder.exists()


def test_servers_die_with_the_process_that_opened_the_laboratory(tmp_path: Path) -> None:
    """A laboratory whose process is killed leaves no process, and the next one in its folder starts clean."""
    folder = tmp_path / "lab"
    story = (
        "import sys, json\nfrom deploy.lab import Lab\n"
        "with Lab(sys.argv[1]) as lab:\n"
        "    lab.redis(), lab.engine()\n    print(json.dumps('up'), flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", story, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()
    ) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline()) == "up"
        with pytest.raises(MachineError, match="another laboratory"), Lab(folder):
            pass
        child.send_signal(signal.SIGKILL)
    assert poll(lambda: not marked_processes(folder), seconds=10)
    assert not mounts_below(folder)
    with Lab(folder) as lab:
        assert [entry.name for entry in folder.iterdir()] == [".lock"]
        assert lab.redis().answers()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the server's own words."""
    with Lab(tmp_path / "lab") as lab:
        with pytest.raises(MachineError, match="no-such-directive"):
            lab.redis(no_such_directive="1")
        with pytest.raises(MachineError, match="no-such-flag"):
            lab.engine(options=["--no-such-flag"])
