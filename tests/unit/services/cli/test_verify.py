"""`verify`."""

import asyncio
import json

from events.bus import Outcome
from events.records import ANY
from services.adapters.memory_archives import tar_of
from services.core.ranges.ranges import DesiredImage, DesiredImages, RangeKeys
from tests.unit.services.cli.conftest import Shell
from tests.unit.services.twins import STREAMS

WEB = "docker.io/library/web:1"
ENGINE = ("--engine-url", "tcp://10.0.0.2:2375")


def _want(shell: Shell, image_id: str) -> None:
    wanted = DesiredImage(reference=WEB, image_id=image_id, diff_ids=(), deployment_id="d1")
    value = DesiredImages(range_id="r1", images={WEB: wanted})
    record = RangeKeys(STREAMS.prefix).wanted("r1").write(value, expected=ANY)
    asyncio.run(shell.world.bus.commit(Outcome(records=(record,))))


def test_a_line_per_image_and_the_exit_status(shell: Shell) -> None:
    """0 while all is as it should be, 5 when not; as JSON with both identities."""
    image = shell.world.engine.add_image("web:1", [tar_of({"f": b"1"})])
    _want(shell, str(image.image_id))
    well = shell.json("verify", "r1", *ENGINE)
    assert (well["well"], well["items"][0]["verdict"]) == (True, "ok")
    shell.world.engine.add_image("web:1", [tar_of({"f": b"2"})])
    result = shell.run("verify", "r1", *ENGINE)
    assert result.exit_code == 5
    assert f"{WEB}  other content  {str(image.image_id)[7:19]}" in result.stdout
    assert json.loads(shell.run("verify", "r1", *ENGINE, "--json").stdout)["well"] is False


def test_a_range_that_never_spoke_is_bad_input(shell: Shell) -> None:
    """As is an engine's address that is none; a range without deployments has nothing to be wrong."""
    assert shell.run("verify", "nowhere").exit_code == 2
    assert shell.run("verify", "r1", "--engine-url", "nonsense").exit_code == 2
    result = shell.run("verify", "r1", *ENGINE)
    assert result.exit_code == 0
    assert "nothing was deployed to range r1 yet" in result.stderr
