"""The drawing of how time grows."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.fleet.report import drawing

SVG = "{http://www.w3.org/2000/svg}"


def test_each_measurement_is_a_dot_within_the_drawing() -> None:
    """More ranges are further right, more seconds further up, and both are written beside the dot."""
    points = [(10, 0.4), (100, 2.5), (1000, 30.0)]
    root = ElementTree.fromstring(drawing(points))
    dots = [(float(one.get("cx", "-1")), float(one.get("cy", "-1"))) for one in root.iter(f"{SVG}circle")]
    texts = {one.text for one in root.iter(f"{SVG}text")}
    assert dots == sorted(dots, key=lambda dot: (dot[0], -dot[1]))
    assert all(0 < x < 640 and 0 < y < 360 for x, y in dots)
    assert {"0.4 s", "2.5 s", "30.0 s", "1,000"} <= texts
