"""The model of many hosts: what decides, and that its page says what it computes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.scale import report
from bench.scale.case import main
from bench.scale.model import ARRANGEMENTS, GB, Measured, Site, most_hosts

ROOT = Path(__file__).parents[4]
SITE = Site()
SVG = "{http://www.w3.org/2000/svg}"


def test_the_calibration_is_what_was_measured() -> None:
    """The figures stand in docs/measurements.md: a pull, engines' processor time, the registry's share."""
    text = (ROOT / "docs/measurements.md").read_text()
    (pull,) = re.findall(
        r"^\| first, 1.4 GB, one range \| [\d.]+ \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", text, re.MULTILINE
    )
    (engines, registry) = re.findall(r"ranges' engines ([\d.]+), registry ([\d.]+),", text)[0]
    measured = Measured()
    assert measured.pull_seconds_per_gb == pytest.approx(float(pull[1]) / 1.4)
    assert measured.pull_cpu_per_gb == pytest.approx(float(engines) / 5.6)
    assert measured.serve_cpu_per_gb == pytest.approx((float(registry) - float(pull[0])) / 5.6, rel=0.01)


def test_each_arrangement_asks_less_of_the_registry_than_the_one_before() -> None:
    """And takes no longer, with many hosts."""
    found = [arrangement(SITE) for arrangement in ARRANGEMENTS.values()]
    sent = [one.origin_bytes for one in found]
    assert sent == sorted(sent, reverse=True)
    assert [one.seconds for one in found] == sorted((one.seconds for one in found), reverse=True)
    assert sent[0] == SITE.ranges * SITE.image_bytes


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_more_hosts_never_take_less_time(name: str) -> None:
    """Nor a larger image, nor a slower line."""
    arrangement = ARRANGEMENTS[name]
    times = [arrangement(replace(SITE, hosts=hosts)).seconds for hosts in (1, 3, 17, 200, 5000)]
    assert times == sorted(times)
    assert arrangement(replace(SITE, image_bytes=40 * GB)).seconds >= arrangement(SITE).seconds
    assert arrangement(replace(SITE, origin_link=SITE.origin_link / 100)).seconds >= arrangement(SITE).seconds


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_the_number_of_hosts_is_where_the_bound_changes(name: str) -> None:
    """One host more, and what they share decides."""
    arrangement, end = ARRANGEMENTS[name], most_hosts(ARRANGEMENTS[name], SITE)
    if end is None:
        assert arrangement(replace(SITE, hosts=1_000_000)).bound in ("slots", "peers' links")
        return
    assert arrangement(replace(SITE, hosts=end)).bound == "slots"
    assert arrangement(replace(SITE, hosts=end + 1)).bound == "origin's link"


def test_mounting_does_not_depend_on_the_size() -> None:
    """Nothing is unpacked: a hundred times the image takes as long."""
    mounted = ARRANGEMENTS["seeded, mounted"]
    assert mounted(replace(SITE, image_bytes=2000 * GB)).seconds == mounted(SITE).seconds


def test_the_page_says_what_the_model_computes() -> None:
    """`python -m bench scale --page` would change nothing."""
    assert report.page(SITE) == (ROOT / "docs/scale.md").read_text()
    assert report.drawing(SITE) == (ROOT / "docs/scale.svg").read_text()


def test_every_arrangement_is_a_line_within_the_drawing() -> None:
    """With its name beside it."""
    root = ElementTree.fromstring(report.drawing(SITE))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    lines = [one.attrib["points"].split() for one in root.iter(f"{SVG}polyline")]
    assert sum(len(points) == len(report.HOSTS) for points in lines) == len(ARRANGEMENTS)
    places = [tuple(map(float, place.split(","))) for points in lines for place in points]
    assert all(0 < x < width and 0 < y < height for x, y in places)
    assert {one.text for one in root.iter(f"{SVG}text")} >= set(ARRANGEMENTS)


def test_other_assumptions_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    """And are in the answer; none can be nothing."""
    answer = main(["--hosts", "3", "--gigabytes", "5"])
    assert (answer["site"]["hosts"], answer["site"]["image_bytes"]) == (3, 5 * GB)
    assert set(answer["arrangements"]) == set(ARRANGEMENTS)
    with pytest.raises(SystemExit):
        main(["--hosts", "0"])
    assert "greater than 0" in capsys.readouterr().err


def test_the_page_on_peers_has_the_models_figures() -> None:
    """docs/peer-to-peer.md: how long until all ranges have it, and how long the bytes alone take."""
    page = (ROOT / "docs/peer-to-peer.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+ \w+) \| ([\d.]+ \w+) \| ([\d.]+ min) \|", page, re.MULTILINE)
    assert len(rows) == 8
    unpacking = {"slots", "host's cores", "host's disk"}
    for number, (hosts, *told) in enumerate(rows):
        site = replace(SITE, hosts=int(hosts.replace(",", "")))
        for name, text in zip(("flat caches", "two levels", "peer to peer"), told, strict=True):
            found = ARRANGEMENTS[name](site)
            bytes_alone = max(seconds for bound, seconds in found.shares.items() if bound not in unpacking)
            amount, unit = text.split()
            seconds = float(amount) * (3600 if unit == "h" else 60)
            assert seconds == pytest.approx(found.seconds if number < 4 else bytes_alone, rel=0.05), (hosts, name)
    for name, told in (("flat caches", "105"), ("two levels", "1,680")):
        assert f"{most_hosts(ARRANGEMENTS[name], SITE):,}" == told
        assert f"at {told}" in page
