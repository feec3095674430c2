"""Certificates for the way between hosts: an authority of the installation's own, the door's, one for each host.

    python -m deploy.stack.certificates door FOLDER [--also HOST-OR-ADDRESS…]     and the authority, where there is none
    python -m deploy.stack.certificates host FOLDER NAME                           FOLDER/hosts/NAME/{own,ca}.pem

Each call makes the certificate anew, so renewing is calling it again. They are made by openssl, of the distribution.

    FOLDER/authority/ca.key, ca.pem     ten years; the key signs, and needs to be nowhere else
    FOLDER/door/own.pem, ca.pem, hosts  the door's certificate with its key; the names that are let in
    FOLDER/door/client.pem              with which the door asks further hosts for archives
    FOLDER/door/addresses               of the further hosts that it asks (deploy.stack.hosts)
    FOLDER/hosts/NAME/own.pem, ca.pem   a host's
    FOLDER/hosts/NAME/server.pem        with which its link proves to the door that it is NAME

A door's certificate proves a server alone and a host's a client alone, so no host can stand in for the door; what a
host shows the door as a server has another name.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploy.container.host_proxies import DOOR_NAME, NAME, checked_name, proved_name
from deploy.machine.commands import MachineError, need, run

AUTHORITY_DAYS = 3650
#: Renew within this time: `make up` does it for the door.
DAYS = 397
_CLIENT = "extendedKeyUsage=clientAuth\n"


def make_authority(folder: Path) -> Path:
    """The authority's certificate; made once."""
    home = folder / "authority"
    _private(home)
    if not (home / "ca.pem").exists():
        words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-sha256"]
        words += ["-days", str(AUTHORITY_DAYS), "-subj", "/CN=CYROID images authority"]
        words += ["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext", "keyUsage=critical,keyCertSign"]
        _openssl(*words, "-keyout", str(home / "ca.key"), "-out", str(home / "ca.new"))
        (home / "ca.new").replace(home / "ca.pem")
    return home / "ca.pem"


def make_door(folder: Path, also: Iterable[str] = (), *, days: int = DAYS) -> Path:
    """The folder with the door's certificate. `also`: names and addresses under which it is reached directly."""
    names = [f"DNS:{DOOR_NAME}"]
    for one in also:
        names.append(f"IP:{one}" if _is_address(one) else f"DNS:{_checked(one)}")
    _sign(folder, folder / "door", DOOR_NAME, f"extendedKeyUsage=serverAuth\nsubjectAltName={','.join(names)}\n", days)
    _sign(folder, folder / "door", DOOR_NAME, _CLIENT, days, file="client.pem")
    (folder / "door" / "hosts").touch(mode=0o600)
    return folder / "door"


def make_host(folder: Path, name: str, *, days: int = DAYS) -> Path:
    """The folder with the certificate of host `name`, which the door lets in from its next start on."""
    home, proved = folder / "hosts" / _checked_host(name), proved_name(name)
    _sign(folder, home, name, _CLIENT, days)
    server = f"extendedKeyUsage=serverAuth\nsubjectAltName=DNS:{proved}\n"
    _sign(folder, home, "CYROID images host", server, days, file="server.pem")
    _private(folder / "door")
    listed = folder / "door" / "hosts"
    known = listed.read_text().split() if listed.exists() else []
    _write_hosts(listed, {*known, name})
    return home


def forget_host(folder: Path, name: str) -> None:
    """Refuse this host from the door's next start on; its certificate and key are not kept either."""
    shutil.rmtree(folder / "hosts" / _checked_host(name), ignore_errors=True)
    listed = folder / "door" / "hosts"
    if listed.exists():
        _write_hosts(listed, set(listed.read_text().split()) - {name})
    note_address(folder, name, "")


def address_of(folder: Path, name: str) -> str:
    """Where the door asks host `name` for archives; empty: nowhere."""
    return _addresses(folder).get(name, "").strip("[]")


def note_address(folder: Path, name: str, address: str) -> None:
    """Where the door asks host `name` for archives, from its next start on; empty: nowhere."""
    known = _addresses(folder)
    if known.pop(name, None) is None and not address:
        return
    if address:
        known[name] = f"[{address}]" if ":" in address else address
    _put(folder / "door" / "addresses", "".join(f"{one} {where}\n" for one, where in sorted(known.items())))


def _addresses(folder: Path) -> dict[str, str]:
    listed = folder / "door" / "addresses"
    lines = listed.read_text().splitlines() if listed.exists() else []
    return {name: where for name, where in map(str.split, lines)}


def _write_hosts(file: Path, names: Iterable[str]) -> None:
    new = file.with_name("hosts.new")
    new.write_text("".join(f"{name}\n" for name in sorted(names)))
    new.chmod(0o600)
    new.replace(file)


def _sign(folder: Path, home: Path, name: str, extensions: str, days: int, *, file: str = "own.pem") -> None:
    """`file` (certificate and key in one) and `ca.pem` in `home`. Raises MachineError."""
    authority = make_authority(folder)
    _private(home)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        key, request, signed, more = (Path(scratch, one) for one in ("key", "request", "signed", "extensions"))
        more.write_text(f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n{extensions}")
        words = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-subj", f"/CN={name}"]
        _openssl(*words, "-keyout", str(key), "-out", str(request))
        by = ["-CA", str(authority), "-CAkey", str(authority.with_name("ca.key")), "-days", str(days)]
        words = ["x509", "-req", "-sha256", *by, "-set_serial", f"0x{os.urandom(16).hex()}", "-extfile", str(more)]
        _openssl(*words, "-in", str(request), "-out", str(signed))
        _put(home / file, signed.read_text() + key.read_text())
    _put(home / "ca.pem", authority.read_text())


def _put(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(file)


def _private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _checked_host(name: str) -> str:
    try:
        return checked_name(name)
    except ValueError as problem:
        raise MachineError(str(problem)) from problem


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise MachineError(f"{name!r} is no name or address: letters, digits, dots and dashes, at most 63")
    return name


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _openssl(*words: str) -> None:
    run([need("openssl", "openssl"), *words], env={**os.environ, "OPENSSL_CONF": "/dev/null"})


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="deploy.stack.certificates", description="Certificates between hosts.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, what in (("door", "the first host's"), ("host", "a further host's"), ("forget", "refuse a host")):
        one = kinds.add_parser(kind, help=what)
        one.add_argument("folder", type=Path)
        if kind == "door":
            one.add_argument("--also", nargs="*", default=[], metavar="HOST", help="names and addresses of the door")
        else:
            one.add_argument("name")
    given = parser.parse_args(arguments)
    try:
        if given.kind == "door":
            sys.stdout.write(f"{make_door(given.folder, given.also)}\n")
        elif given.kind == "host":
            sys.stdout.write(f"{make_host(given.folder, given.name)}\n")
        else:
            forget_host(given.folder, given.name)
    except (MachineError, OSError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
