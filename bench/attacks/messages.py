"""Attacks by messages: commands, other roles' events, other ranges' transfers, other senders' names."""

from __future__ import annotations

import json
import time
from typing import Any

from bench.attacks.register import Result, attack, refused
from bench.attacks.stage import Stage

ZERO = "sha256:" + "0" * 64


def _said(stage: Stage, kind: str, data: dict[str, Any], **more: str) -> Result:
    """One message to the own outbox, as the gateway answers it."""
    return refused(
        stage.attack("print(say(VALUES['kind'], VALUES['data'], **VALUES['more']))", kind=kind, data=data, more=more)
    )


@attack
def deploy_to_another_range(stage: Stage) -> Result:
    """A deployment of an image of the host's to the victim."""
    image = stage.image()
    order = {"deployment_id": f"evil-{time.time_ns()}", "range_id": stage.victim, "images": [image]}
    said = stage.attack("print(say('deployment.requested.v1', VALUES['order']))", order=order)
    time.sleep(3.0)
    return Result(stage.held_by(stage.victim, image), said.strip())


@attack
def take_over_anothers_engine(stage: Stage) -> Result:
    """The victim's engine is said to be the attacker's own: later deployments would land there."""
    address = stage.address(f"cyroid-range-{stage.attacker}", f"cyroid-ranges-{stage.attacker}")
    order = {
        "deployment_id": f"evil-{time.time_ns()}",
        "range_id": stage.victim,
        "images": [stage.image()],
        "engine_url": f"tcp://{address}:2375",
    }
    said = stage.attack("print(say('deployment.requested.v1', VALUES['order']))", order=order)
    images = [stage.image() for _ in range(3)]
    for image in images:
        stage.honest(image)
    stolen = [image for image in images if stage.held_by(stage.attacker, image)]
    return Result(bool(stolen), f"{said.strip()}; landed in the attacker's engine: {len(stolen)} of 3")


@attack
def call_an_address_of_the_management_network(stage: Stage) -> Result:
    """A range that does not exist, with an engine on cyroid-mgmt: the agent pool would call it."""
    order = {"deployment_id": "ghost-1", "range_id": "ghost", "images": ["x:1"], "engine_url": "tcp://172.30.0.24:9099"}
    said = stage.attack("print(say('deployment.requested.v1', VALUES['order']))", order=order)
    time.sleep(3.0)
    place = stage.redis("EXISTS", "cyroid:place:ghost", "cyroid:range:ghost:inbox")
    return Result(place.strip() != "0", f"{said.strip()}; {place}")


@attack
def cancel_anothers_deployment(stage: Stage) -> Result:
    """By an id that is known."""
    name = f"known-{time.time_ns()}"
    stage.deploy(stage.victim, stage.image(), name=name, seconds=0.0)
    said = stage.attack("print(say('deployment.cancel_requested.v1', {'deployment_id': VALUES['name']}))", name=name)
    time.sleep(2.0)
    return Result(stage.state(name) == "cancelled", said.strip())


@attack
def retry_anothers_deployment(stage: Stage) -> Result:
    """A command that asks for work in another range."""
    return _said(stage, "deployment.retry_requested.v1", {"deployment_id": "known"})


@attack
def plan_for_another_range(stage: Stage) -> Result:
    """A plan brings images to the registry and to the ranges that it names."""
    return _said(stage, "deployment.planned.v1", {"plan_id": "p", "images": ["x:1"], "range_ids": [stage.victim]})


@attack
def end_a_deployment_that_never_was(stage: Stage) -> Result:
    """The deployer's own nudge, with an error in it."""
    data = {"deployment_id": "made-up", "error": {"code": "x", "message": "x"}}
    return _said(stage, "deployment.advance.v1", data)


@attack
def say_that_anothers_deployment_succeeded(stage: Stage) -> Result:
    """The tracker would note images that the victim does not have."""
    data = {
        "deployment_id": "d",
        "range_id": stage.victim,
        "images": [{"reference": "made-up:1", "image_id": ZERO, "how": "pulled"}],
    }
    return _said(stage, "deployment.succeeded.v1", data)


@attack
def say_that_anothers_deployment_failed(stage: Stage) -> Result:
    """As above, the other way."""
    return _said(stage, "deployment.failed.v1", {"deployment_id": "d", "range_id": stage.victim})


@attack
def say_that_an_image_was_pushed(stage: Stage) -> Result:
    """A record of an image that the registry does not have."""
    data = {"reference": "evil:1", "repository": "evil", "tag": "1", "manifest_digest": ZERO, "image_id": ZERO}
    return _said(stage, "image.pushed.v1", data)


@attack
def say_that_a_push_failed(stage: Stage) -> Result:
    """Deployments that wait for it would be told."""
    return _said(stage, "image.push_failed.v1", {"reference": "x:1", "error": {"code": "x", "message": "x"}})


@attack
def say_that_an_image_was_deleted(stage: Stage) -> Result:
    """The record of a real image would go."""
    return _said(stage, "image.deleted.v1", {"reference": "docker.io/library/x:1", "manifest_digest": ZERO})


@attack
def ask_for_a_push(stage: Stage) -> Result:
    """Any image of the host's engine would come into the registry."""
    return _said(stage, "image.push_requested.v1", {"reference": "cyroid/images:latest"})


@attack
def announce_an_image_that_was_built(stage: Stage) -> Result:
    """As the host's build does."""
    return _said(stage, "image.built.v1", {"reference": "evil:1", "image_id": ZERO})


@attack
def announce_another_range(stage: Stage) -> Result:
    """A changed engine id would mean that the victim was made anew, empty."""
    data = {
        "range_id": stage.victim,
        "engine_id": "x",
        "engine_version": "1",
        "store": "classic",
        "platform": "linux/amd64",
    }
    return _said(stage, "agent.started.v1", data)


@attack
def list_anothers_images(stage: Stage) -> Result:
    """What the victim has would be what the attacker says."""
    return _said(stage, "agent.images_changed.v1", {"range_id": stage.victim})


@attack
def tell_anothers_progress(stage: Stage) -> Result:
    """On the page of all."""
    data = {"transfer_id": "t", "reference": "x", "kind": "pull", "phase": "done", "range_id": stage.victim}
    return refused(stage.attack("print(say('transfer.progress.v1', VALUES['data'], to='progress'))", data=data))


@attack
def speak_under_anothers_name(stage: Stage) -> Result:
    """The source is half of what tells duplicates."""
    return _said(
        stage, "image.ready.v1", {"transfer_id": "t", "image_id": ZERO, "how": "pulled"}, source=f"agent@{stage.victim}"
    )


@attack
def end_anothers_transfer(stage: Stage) -> Result:
    """ready, failed and tar_requested for a transfer of the victim's while it waits for its push."""
    image, name = stage.image(), f"transfer-{time.time_ns()}"
    stage.deploy(stage.victim, image, name=name, seconds=0.0)
    said = stage.attack(
        """
for number in range(4):
    for attempt in range(4):
        for tail in (f'.{number}.{attempt}', f'-{number}-{attempt}', f'.{number}', ''):
            transfer = VALUES['name'] + tail
            say('image.ready.v1', {'transfer_id': transfer, 'image_id': VALUES['zero'], 'how': 'present'})
            say('image.failed.v1', {'transfer_id': transfer, 'error': {'code': 'x', 'message': 'x'}})
            say('image.tar_requested.v1', {'transfer_id': transfer, 'reason': {'code': 'x', 'message': 'x'}})
print('said')""",
        name=name,
        zero=ZERO,
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and (shown := stage.state(name)) not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
    return Result(not stage.held_by(stage.victim, image), f"{said.strip()}; {shown}")


@attack
def write_into_the_own_inbox(stage: Stage) -> Result:
    """Also with the greatest id there can be, which would make every later entry impossible."""
    code = """
request = {'ask': 'commit', 'messages': [['inbox', entry('image.pull_requested.v1', {})]], 'id': '18446744073709551615-18446744073709551615'}
print(answered(lambda gateway: gateway.ask(request)))"""
    before = stage.redis("XLEN", f"cyroid:range:{stage.attacker}:inbox")
    said = stage.attack(code)
    after = stage.redis("XLEN", f"cyroid:range:{stage.attacker}:inbox")
    return Result(before != after, said.strip())


@attack
def read_as_another_group(stage: Stage) -> Result:
    """The groups of the services are none of a range's."""
    code = """
request = {'ask': 'take', 'holder': ['deployer', 'me', 30.0], 'count': 1}
print(answered(lambda gateway: gateway.ask(request)))"""
    return refused(stage.attack(code))


@attack
def name_streams_and_keys_of_others(stage: Stage) -> Result:
    """No request has a field for them; those that are sent all the same are not looked at."""
    code = """
victim = 'cyroid:range:' + VALUES['victim'] + ':outbox'
request = {'ask': 'commit', 'stream': victim, 'key': victim, 'messages': [[victim, entry('image.ready.v1', {})]]}
print(answered(lambda gateway: gateway.ask(request)))"""
    before = stage.redis("XLEN", f"cyroid:range:{stage.victim}:outbox")
    said = stage.attack(code, victim=stage.victim)
    return Result(before != stage.redis("XLEN", f"cyroid:range:{stage.victim}:outbox"), said.strip())


@attack
def thousands_of_consumers(stage: Stage) -> Result:
    """Each start of a worker has a new name; 5,000 names would make lists and metrics long."""
    code = """
gateway = Gateway()
answers = {}
try:
    for number in range(5000):
        answer = gateway.ask({'ask': 'introduce', 'holder': ['agent', f'evil{number}', 30.0], 'idle_seconds': 3600.0})
        answers[answer.get('error') or 'ok'] = answers.get(answer.get('error') or 'ok', 0) + 1
except OSError as ended:
    answers['ended'] = 1
print(json.dumps(answers))"""
    said = stage.attack(code)
    groups = stage.redis("XINFO", "CONSUMERS", f"cyroid:range:{stage.attacker}:inbox", "agent")
    return Result(groups.count("evil") > 300, f"{said.strip()}; {groups.count('evil')} consumers")


@attack
def words_that_write_on_a_terminal(stage: Stage) -> Result:
    """Escapes, right-to-left marks, NUL and line breaks in names, ids and errors, on every way out."""
    code = r"""
bad = 'a\x1b[2J\x1b]0;owned\x07\u202e\x00\nb'
print(say('agent.images_changed.v1', {'range_id': ME, 'images': [{'references': [bad], 'diff_ids': [], 'local_id': bad}]}))
print(say('image.failed.v1', {'transfer_id': 't', 'error': {'code': bad, 'message': bad}}))"""
    said = stage.attack(code)
    time.sleep(2.0)
    shown = stage.cyroid("ranges", "ls") + stage.cyroid("doctor") + stage.cyroid("events", "groups")
    shown += stage.docker("logs", "--since", "30s", "cyroid-images-deployer-1")
    found = sorted({sign for sign in shown if sign in "\x1b\x07\u202e\x00"})
    return Result(bool(found), f"{said.split()}; raw signs: {json.dumps(found)}")
