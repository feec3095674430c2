"""Page of the scale model: tables, a drawing of time against the number of hosts, and what to choose when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log10
from pathlib import Path

from bench.scale.model import ARRANGEMENTS, GB, Site, most_hosts

FOLDER = Path(__file__).parents[2] / "docs"
HOSTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_COLOURS = ("#cf222e", "#bf8700", "#1f6feb", "#8250df", "#1a7f37")
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 400, 64, 24, 560, 344

TEMPLATE = Path(__file__).with_name("template.md")


def write(site: Site) -> None:
    """Both files of the page."""
    (FOLDER / "scale.md").write_text(page(site))
    (FOLDER / "scale.svg").write_text(drawing(site))


def page(site: Site) -> str:
    """The page as text."""
    ends = {name: most_hosts(arrangement, site) for name, arrangement in ARRANGEMENTS.items()}
    together = ARRANGEMENTS["flat caches"](site).shares["slots"] * site.hosts / 3600
    return TEMPLATE.read_text().format(
        hosts=site.hosts,
        ranges=site.ranges_per_host,
        size=site.image_bytes / GB,
        link=8 * site.origin_link / GB,
        cores=site.host_cores,
        disk=site.host_disk / GB,
        slots=site.slots,
        total=site.ranges_per_host * site.image_bytes / GB,
        together=together,
        hourly=3600 * site.origin_link / GB / 1000,
        mount=site.measured.mount_seconds,
        rows="\n".join(_row(name, site, ends[name]) for name in ARRANGEMENTS),
        one=_count(ends["one registry"]),
        flat=_count(ends["flat caches"]),
        two=_count(ends["two levels"]),
        slots_rows="\n".join(_slots_row(site, slots) for slots in (4, 8, 16, 32)),
    )


def _row(name: str, site: Site, end: int | None) -> str:
    found = ARRANGEMENTS[name](site)
    size, written = found.origin_bytes / GB, found.host_bytes / GB
    cells = (name, _time(found.seconds), found.bound, f"{size:,.0f} GB", f"{written:,.0f} GB", f"{_count(end)} hosts")
    return f"| {' | '.join(cells)} |"


def _slots_row(site: Site, slots: int) -> str:
    found = ARRANGEMENTS["two levels"](replace(site, slots=slots, hosts=1))
    return f"| {slots} | {_time(found.seconds)} | {found.bound} |"


def _count(hosts: int | None) -> str:
    return "any number of" if hosts is None else f"{hosts:,}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def drawing(site: Site) -> str:
    """Seconds by hosts of each arrangement, both on a logarithmic scale, as SVG."""
    lines = {
        name: [(hosts, arrangement(replace(site, hosts=hosts)).seconds) for hosts in HOSTS]
        for name, arrangement in ARRANGEMENTS.items()
    }
    every = [seconds for points in lines.values() for _, seconds in points]
    low, high = int(log10(min(every))), int(log10(max(every)) + 1)

    def at(hosts: float, seconds: float) -> tuple[float, float]:
        x = _LEFT + (_RIGHT - _LEFT) * log10(hosts / HOSTS[0]) / log10(HOSTS[-1] / HOSTS[0])
        return x, _BOTTOM - (_BOTTOM - _TOP) * (log10(seconds) - low) / (high - low)

    parts = [_grid(10.0**exponent, at(1, 10.0**exponent)[1]) for exponent in range(low, high + 1)]
    parts += [
        f'<text x="{at(hosts, 1)[0]:.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{hosts:,}</text>'
        for hosts in (1, 10, 100, 1000)
    ]
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 42}" text-anchor="middle">hosts</text>')
    for number, ((name, points), colour) in enumerate(zip(lines.items(), _COLOURS, strict=True)):
        parts.append(_line([at(*point) for point in points], colour, dash=number * 3))
        parts.append(f'<text x="{_RIGHT + 36}" y="{_TOP + 20 * number + 4}">{name}</text>')
        y = _TOP + 20 * number
        parts.append(_line([(_RIGHT + 8, y), (_RIGHT + 30, y)], colour, dash=number * 3))
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="#808080">\n  {body}\n</svg>\n'
    )


def _grid(seconds: float, y: float) -> str:
    label = f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_time(seconds)}</text>'
    return f'<line x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>{label}'


def _line(through: Sequence[tuple[float, float]], colour: str, *, dash: int) -> str:
    """A line of its own pattern too: some lie on one another, and not everybody sees colours."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in through)
    pattern = f' stroke-dasharray="{dash + 3} {dash}"' if dash else ""
    return f'<polyline fill="none" stroke="{colour}" stroke-width="2"{pattern} points="{places}"/>'
