"""Each service in turn is stopped while deployments to five engines are open, and is started again seconds later."""

from __future__ import annotations

import time

import pytest

from tests.stack.operator import PLAIN, RANGES, Stack, context

#: So long a service is away.
AWAY_SECONDS = 5.0
NOISE_MEGABYTES = 8
#: Two engines that stand still until the service is away, so that their deployments are open at that moment; the others
#: are wherever they have got to.
HELD = ("r28", PLAIN)
SERVICES = (
    "redis",
    "registry",
    "registry-pull",
    "registry-pusher",
    "deployer",
    "tar-server",
    "agent-pool",
    "range-gateway",
    "range-proxy",
    "tracker",
    "collector",
    "api",
    "engine-proxy",
)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_that_goes_away_delays_and_loses_nothing(
    service: str, stack: Stack, images: list[str], plain: str
) -> None:
    """Deployments asked for, the service killed while they are open, the engines at work while it is away: every range
    ends once, with the right content."""
    bus = "deployer" if service == "api" else "api"
    image = f"turn-{service}:1"
    everywhere = [*RANGES, plain]
    stack.cyroid("images", "build", "-", "-t", image, stdin=context(service, NOISE_MEGABYTES))
    for name in HELD:
        stack.in_range(name, "pkill -STOP -x dockerd")
    try:
        ids = stack.ask(service, everywhere, image, service=bus)
        if service == "redis":  # which cannot be asked afterwards
            ended = stack.ended(*ids.values())
            stack.service("stop", service)
        else:
            stack.service("kill", service)
            ended = stack.ended(*ids.values())
    finally:
        for name in HELD:
            stack.in_range(name, "pkill -CONT -x dockerd")
    time.sleep(AWAY_SECONDS)  # it is away this long; nothing is waited for
    stack.service("start", service)
    assert not {ids[name] for name in HELD} & set(ended), "a deployment had ended before the service went away"
    stack.succeeded(*ids.values())
    for name in everywhere:
        assert stack.content(name, image) == service
        stack.in_range(name, f"docker rmi {image}")
