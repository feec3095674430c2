"""Container escapes: files of the host by number, modules, devices, clocks, control groups, and with the engine's help."""

from __future__ import annotations

from bench.attacks.register import Result, attack
from bench.attacks.stage import Stage

#: Files of the mount's own file system by number (`open_by_handle_at`), as has been done since 2014.
BY_NUMBER = r"""
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
mount = os.open('/run/cyroid', os.O_RDONLY)
opened = []
for number in range(1, 200):
    for kind, size in ((1, 8), (0x81, 8), (0x4d, 40)):
        handle = struct.pack('Ii', size, kind) + struct.pack('QI', number, 0).ljust(128, b'\0')
        buffer = ctypes.create_string_buffer(handle, 136)
        found = libc.open_by_handle_at(mount, buffer, os.O_RDONLY)
        if found >= 0:
            opened.append(number)
        elif ctypes.get_errno() != 1:
            opened.append(-ctypes.get_errno())
print('opened' if opened else 'refused', sorted(set(opened))[:5])
"""
NUMBERS = {"init_module": 175, "kexec_load": 246, "iopl": 172, "swapon": 167, "acct": 163, "settimeofday": 164}


def _held(stage: Stage, script: str, sign: str) -> Result:
    """Harm: the script says `sign`."""
    done = stage.shell(script)
    said = (done.stdout + done.stderr).decode(errors="replace")
    return Result(sign in said, said.strip()[-300:])


@attack
def open_files_of_the_host_by_number(stage: Stage) -> Result:
    """`open_by_handle_at` on a mount from the host: every call is refused, whatever the number."""
    return _held(stage, f"python3 - <<'END'\n{BY_NUMBER}\nEND", "opened")


@attack
def open_files_by_number_from_a_container_of_the_range(stage: Stage) -> Result:
    """The range's own engine is asked for a container with every capability, and for a privileged one."""
    script = f"""
tar -C / -c usr/bin/python3 usr/bin/python3.* usr/lib/python3* usr/lib/x86_64-linux-gnu lib lib64 bin etc/passwd 2>/dev/null | docker import - attacker:1 >/dev/null
for rights in "--cap-add DAC_READ_SEARCH --security-opt seccomp=unconfined" "--cap-add ALL --security-opt seccomp=unconfined" "--privileged"; do
docker run --rm -i --network none $rights -v /run/cyroid:/run/cyroid attacker:1 /usr/bin/python3 - <<'END' 2>&1
{BY_NUMBER}
END
done"""
    return _held(stage, script, "opened")


@attack
def ask_the_kernel_for_what_is_not_a_ranges(stage: Stage) -> Result:
    """Modules, another kernel, input and output ports, swap, accounting, the clock."""
    script = f"""python3 - <<'END'
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
done = []
for name, number in {NUMBERS!r}.items():
    if libc.syscall(number, None, None, None) == 0 or ctypes.get_errno() != 1:
        done.append((name, ctypes.get_errno()))
print('done' if done else 'refused', done)
END"""
    return _held(stage, script, "done")


@attack
def set_the_clock(stage: Stage) -> Result:
    """The host's, as there is no other."""
    return _held(stage, "date -s '2001-01-01' && date +%Y; hwclock -w 2>&1 | head -1", "\n2001")


@attack
def open_the_hosts_disks(stage: Stage) -> Result:
    """Device nodes of every block device that the kernel lists, made by the range itself."""
    script = """
for entry in /sys/class/block/*; do
    number=$(cat "$entry/dev"); rm -f /tmp/disk
    mknod /tmp/disk b "${number%:*}" "${number#*:}" 2>/dev/null && head -c 1 /tmp/disk >/dev/null 2>&1 && echo "read $entry"
done
mknod /tmp/mem c 1 1 2>/dev/null && head -c 1 /tmp/mem >/dev/null 2>&1 && echo "read memory"
echo end"""
    return _held(stage, script, "read ")


@attack
def read_the_kernels_log(stage: Stage) -> Result:
    """Addresses and what other containers did."""
    return _held(stage, "dmesg 2>/dev/null | head -1 | grep -q . && echo got it; echo end", "got it")


@attack
def leave_by_a_release_agent(stage: Stage) -> Result:
    """The kernel would run a program of the range's choice on the host: there is no such file in its control groups."""
    script = """
mkdir -p /tmp/groups
for kind in memory cpu rdma pids devices freezer; do
    mount -t cgroup -o $kind none /tmp/groups 2>/dev/null || continue
    [ -e /tmp/groups/release_agent ] && echo /bin/true >/tmp/groups/release_agent && echo "wrote $kind"
    umount /tmp/groups
done
find /sys/fs/cgroup -maxdepth 2 -name release_agent | sed 's/^/wrote /'
echo end"""
    return _held(stage, script, "wrote ")


@attack
def allow_itself_every_device(stage: Stage) -> Result:
    """The control group's own list of devices."""
    return _held(stage, "echo a >/sys/fs/cgroup/devices/devices.allow 2>/dev/null && echo allowed; echo end", "allowed")


@attack
def see_processes_of_others(stage: Stage) -> Result:
    """Neither the host's nor another range's are in a range's process list."""
    return _held(
        stage,
        "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'serve deploye[r]\\|serve registry-pushe[r]'; echo end",
        "1\nend",
    )


@attack
def find_the_hosts_socket(stage: Stage) -> Result:
    """In mounts, files and through the own engine's."""
    script = "cat /proc/self/mountinfo | grep -c 'docker.sock'; docker info --format '{{.Name}}'"
    done = stage.shell(script).stdout.decode().split()
    return Result(done[:1] != ["0"] or done[1:] != [stage.attacker], str(done))
