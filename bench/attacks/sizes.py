"""Attacks by size: entries, frames, lists and strings that are too large, too many or malformed."""

from __future__ import annotations

import time

from bench.attacks.register import Result, attack, flood, refused
from bench.attacks.stage import Stage

#: A flood goes on for so long.
FLOOD_SECONDS = 20


def _beside(stage: Stage, code: str) -> Result:
    """Run it; harm is a service that was killed."""
    stage.killed()
    said = stage.attack(code)
    time.sleep(1.0)
    killed = stage.killed()
    return Result(bool(killed), f"{said.strip()[-300:]}; killed: {killed}")


def _in_background(stage: Stage, code: str) -> Result:
    """Start it in the range and leave it running for FLOOD_SECONDS."""
    stage.killed()
    begin = f"until = time.monotonic() + {FLOOD_SECONDS}\n"
    body = begin + code
    wrapped = f"import os\nif os.fork() == 0:\n    os.setsid()\n    for one in (0, 1, 2): os.close(one)\n    exec({body!r}, globals())\n    os._exit(0)\nprint('started')"
    said = stage.attack(wrapped)
    return Result("started" not in said, said.strip()[-300:])


@attack
def an_entry_of_150_mb(stage: Stage) -> Result:
    """One message: Redis would be killed by its memory, again and again."""
    return _beside(
        stage,
        "print(say('image.failed.v1', {'transfer_id': 't', 'error': {'code': 'x', 'message': 'm' * 150_000_000}}))",
    )


@attack
def an_entry_of_1_mb(stage: Stage) -> Result:
    """As large as the bus takes from services."""
    return refused(
        stage.attack(
            "print(say('image.failed.v1', {'transfer_id': 't', 'error': {'code': 'x', 'message': 'm' * 1_000_000}}))"
        )
    )


@attack
def a_frame_that_says_4_gb(stage: Stage) -> Result:
    """The length alone, then a byte now and then."""
    code = """
gateway = Gateway()
gateway.socket.sendall(b'\\xff\\xff\\xff\\xff')
try:
    for _ in range(20):
        gateway.socket.sendall(b'x' * 1000)
        time.sleep(0.1)
    print('ok')
except OSError as ended:
    print('ended: ' + type(ended).__name__)"""
    return refused(stage.attack(code))


@attack
def a_correlation_id_of_60_kb(stage: Stage) -> Result:
    """It would be on every log line."""
    code = "print(say('image.ready.v1', {'transfer_id': 't', 'image_id': 'sha256:' + '0' * 64, 'how': 'pulled'}, correlationid='c' * 60_000))"
    return refused(stage.attack(code))


@attack
def an_id_of_60_kb(stage: Stage) -> Result:
    """It would be part of keys."""
    code = "print(say('image.ready.v1', {'transfer_id': 't', 'image_id': 'sha256:' + '0' * 64, 'how': 'pulled'}, id='i' * 60_000))"
    return refused(stage.attack(code))


@attack
def a_heartbeat_of_200_mb(stage: Stage) -> Result:
    """Whoever lists ranges would read it."""
    return refused(
        stage.attack(
            "print(answered(lambda g: g.ask({'ask': 'beat', 'value': b'x' * 200_000_000, 'expires_seconds': 30.0})))"
        )
    )


@attack
def a_progress_note_of_1_mb(stage: Stage) -> Result:
    """The stream is everybody's."""
    code = """
data = {'transfer_id': 't', 'reference': 'x', 'kind': 'pull', 'phase': 'done', 'note': 'n' * 900_000}
print(say('transfer.progress.v1', data, to='progress'))"""
    return refused(stage.attack(code))


@attack
def a_list_of_15000_images(stage: Stage) -> Result:
    """Fifteen times."""
    code = """
images = [{'references': [f'image-{n}:1'], 'diff_ids': ['sha256:' + '0' * 64]} for n in range(15000)]
said = [say('agent.images_changed.v1', {'range_id': ME, 'images': images}) for _ in range(15)]
print(sorted(set(said)))
print('ok' if 'ok' in said else 'refused')"""
    return refused(stage.attack(code))


@attack
def numbers_and_nesting_that_no_decoder_likes(stage: Stage) -> Result:
    """Infinities, 2^64, minus, deep nesting, double keys, broken UTF-8, empty and endless fields."""
    code = r"""
import random
dice = random.Random(1)
deep = b'\x91' * 3000 + b'\xc0'
texts = ['[' * 5000, '{"a":' * 3000, '1e999', '-1', '18446744073709551616', 'nan', '"\\ud800"', '{"range_id":"x","range_id":"y"}', '']
bad = [deep, b'', b'\xc1', b'\xc7' * 100, pack([2**63, {}]), pack({'ask': 'take'}), pack([1, [1]]), pack([1, {'ask': 'take', 'holder': ['agent', 'o', float('inf')], 'count': 1}])]
bad += [bytes(dice.randrange(256) for _ in range(dice.randrange(200))) for _ in range(200)]
def send(payload):
    try:
        gateway = Gateway()
        gateway.send_raw(payload)
        answer = gateway.read()
        return answer.get('error') or 'answered'
    except (OSError, AttributeError) as ended:
        if isinstance(ended, ConnectionRefusedError):
            time.sleep(1)
        return type(ended).__name__
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:  # the gateway waits for the rest of some
    ends = Counter(pool.map(send, bad))
for text in texts:
    fields = entry('agent.images_changed.v1', {})
    fields[b'data'] = text.encode('utf-8', 'surrogatepass')
    answered(lambda gateway: gateway.ask({'ask': 'commit', 'messages': [['outbox', fields]]}))
print(json.dumps(ends))"""
    return _beside(stage, code)


@attack
def times_from_far_away(stage: Stage) -> Result:
    """Year 1, year 9999, no offset, an offset of a day: nobody stumbles over them."""
    code = """
for moment in ('0001-01-01T00:00:00Z', '9999-12-31T23:59:59.999999Z', '2026-01-01T00:00:00', '2026-01-01T00:00:00+23:59', 'now', ''):
    say('agent.images_changed.v1', {'range_id': ME}, time=moment)
print('said')"""
    return _beside(stage, code)


@flood
def junk_without_end(stage: Stage) -> Result:
    """100,000 frames that are no request, over as many connections as it takes."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    try:
        gateway = Gateway()
        for _ in range(1000):
            gateway.send_raw(b'junk')
    except OSError:
        pass""",
    )


@flood
def well_formed_messages_without_end(stage: Stage) -> Result:
    """As fast as they are taken."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    try:
        gateway = Gateway()
        while time.monotonic() < until:
            for _ in range(50):
                gateway.send(commit('image.ready.v1', {'transfer_id': 't', 'image_id': 'sha256:' + '0' * 64, 'how': 'pulled'}))
            for _ in range(50):
                gateway.read()
    except OSError:
        pass""",
    )


@flood
def a_pipeline_that_is_never_read(stage: Stage) -> Result:
    """Requests without end, answers left lying."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    try:
        gateway = Gateway()
        while time.monotonic() < until:
            gateway.send({'ask': 'take', 'holder': ['agent', 'me', 30.0], 'count': 16})
    except OSError:
        pass""",
    )


@flood
def leases_taken_and_thrown_away(stage: Stage) -> Result:
    """Takes, recoveries and renewals in turn, from four connections."""
    return _in_background(
        stage,
        """
import threading
def one(name):
    while time.monotonic() < until:
        try:
            gateway = Gateway()
            while time.monotonic() < until:
                holder = ['agent', name, 0.05]
                gateway.ask({'ask': 'take', 'holder': holder, 'count': 64})
                gateway.ask({'ask': 'recover', 'holder': holder, 'count': 64})
                gateway.ask({'ask': 'trim', 'keep_seconds': 60.0})
        except OSError:
            pass
threads = [threading.Thread(target=one, args=(f'evil{n}',)) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]""",
    )


@flood
def two_thousand_connections_to_the_gateway(stage: Stage) -> Result:
    """Without a Hello, opened again when they are closed."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    held = hold(*GATEWAY, 2000)
    time.sleep(1)""",
    )


@flood
def half_frames_to_the_gateway(stage: Stage) -> Result:
    """A byte of a length, then nothing."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    held = hold(*GATEWAY, 500, b'\\0')
    time.sleep(1)""",
    )


@flood
def half_requests_to_the_registry(stage: Stage) -> Result:
    """Headers that never end, 3,000 of them."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    held = hold('cyroid-registry', 5000, 3000, b'GET /v2/ HTTP/1.1\\r\\nHost: x\\r\\nX-A: ')
    time.sleep(1)""",
    )


@flood
def half_requests_to_the_tar_server(stage: Stage) -> Result:
    """As many as it takes to use up a process's descriptors."""
    return _in_background(
        stage,
        """
while time.monotonic() < until:
    held = hold('cyroid-tar', 7070, 5000, b'GET /tar/x HTTP/1.1\\r\\nHost: x\\r\\nX-A: ')
    time.sleep(1)""",
    )


@flood
def requests_to_the_registry_without_end(stage: Stage) -> Result:
    """Of a blob that is there, or not."""
    return _in_background(
        stage,
        """
import threading
def one():
    while time.monotonic() < until:
        http('http://cyroid-registry:5000/v2/x/blobs/sha256:' + '0' * 64, timeout=3)
threads = [threading.Thread(target=one) for _ in range(50)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]""",
    )
