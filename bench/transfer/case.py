"""Transfer times to ranges: a tar stream, push and pull, and this project, side by side on cold engines.

`python -m bench transfer [--size BYTES] [--ranges 1,4] [--repeats N]`. Each repeat runs every way once, in turn, each
on engines and a registry that hold nothing; at the end of each the range's content is read back and compared by digest.
Figures are medians; ratios are between medians of one run. Others who load the machine load all ways alike.
With `--mounted` mounted layers are measured instead, on three kinds of stores (`bench.transfer.mounted`).
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.transfer import mounted
from bench.transfer.images import build_delta, build_large, build_small_files
from bench.transfer.methods import Ours, pull, push, services, tar, upload_alone
from bench.transfer.testbed import Testbed, copied, cpu_seconds, timed
from deploy.lab import EngineServer, Lab, RedisServer

#: What is to be reached, and what would be better still.
TARGETS = {
    "first_1_vs_tar": (0.75, 0.6),
    "first_1_vs_push_pull": (0.35, 0.25),
    "first_4_vs_tar": (0.6, 0.45),
    "again_1_vs_tar": (0.02, 0.01),
    "delta_1_vs_tar": (0.08, 0.04),
    "ingest_vs_push": (0.2, 0.12),
    "fallback_delta_vs_tar": (0.15, 0.08),
    "ingest_vs_copy": (1.5, 1.1),
}
RATIOS = {
    "first_1_vs_tar": ("ours_first_1", "tar_first_1"),
    "first_1_vs_push_pull": ("ours_first_1", "push_pull_first_1"),
    "first_4_vs_tar": ("ours_first_4", "tar_first_4"),
    "again_1_vs_tar": ("ours_again_1", "tar_again_1"),
    "delta_1_vs_tar": ("ours_delta_1", "tar_delta_1"),
    "ingest_vs_push": ("ours_ingest", "push_ingest"),
    "fallback_delta_vs_tar": ("ours_fallback_delta", "tar_delta_1"),
    "ingest_vs_copy": ("ours_ingest", "copy"),
    "small_files_1_vs_tar": ("ours_small_files_1", "tar_small_files_1"),
    "ingest_vs_registry_alone": ("ours_ingest", "registry_alone"),
}
#: Most memory of a process while it moves at least so much.
PEAK_BYTES = {"registry-pusher": 120_000_000, "agent": 80_000_000, "tar-server": 80_000_000}
PEAK_AT_BYTES = 5_000_000_000
DELTA_BYTES = 20_000_000


@dataclass
class MethodRun:
    """What is measured: lists of seconds by name, CPU seconds and peaks of this project's way."""

    testbed: Testbed
    redis: RedisServer
    large: str
    small: str
    deltas: tuple[str, str]
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    phases: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    cpu: dict[str, float] = field(default_factory=dict)
    work: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    peaks: dict[str, int] = field(default_factory=dict)

    def say(self, name: str) -> None:
        sys.stderr.write(f"  {name:<22} {self.seconds[name][-1]:8.2f} s\n")
        sys.stderr.flush()

    def verify(self, ranges: Sequence[EngineServer], image: str) -> None:
        for one in ranges:
            self.testbed.verify(one, image)

    def _engines_cpu(self, ranges: Sequence[EngineServer]) -> float:
        """CPU seconds of the host's and the ranges' engines, and of the clients that have ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = sum(cpu_seconds(one) for one in (self.testbed.host, *ranges))
        return spent + ended.ru_utime + ended.ru_stime

    # ---- one way each ----

    def tar(self, count: int) -> None:
        with self.testbed.engines(count) as ranges:
            self._tar(ranges, self.large, f"tar_first_{count}")
            if count == 1:
                self._tar(ranges, self.large, "tar_again_1")
                self._tar(ranges, self.deltas[0], "tar_delta_1")

    def tar_small_files(self) -> None:
        with self.testbed.engines(1) as ranges:
            self._tar(ranges, self.small, "tar_small_files_1")

    def _tar(self, ranges: Sequence[EngineServer], image: str, name: str) -> None:
        before = self._engines_cpu(ranges)
        with timed(self.seconds[name]):
            tar(self.testbed, ranges, image)
        self.work[name].append(self._engines_cpu(ranges) - before)
        self.say(name)
        self.verify(ranges, image)

    def push_pull(self, count: int) -> None:
        with self.testbed.engines(count) as ranges, self.testbed.registry() as registry:
            with timed(self.seconds[f"push_{count}"]):
                name = push(self.testbed, registry, self.large)
            with timed(self.seconds[f"pull_{count}"]):
                pull(ranges=ranges, testbed=self.testbed, name=name, image=self.large)
            self.verify(ranges, self.large)
        pushed, pulled = self.seconds[f"push_{count}"][-1], self.seconds[f"pull_{count}"][-1]
        self.seconds["push_ingest"].append(pushed)
        self.seconds[f"push_pull_first_{count}"].append(pushed + pulled)
        self.say(f"push_pull_first_{count}")

    def ours(self, count: int) -> None:
        with (
            self.testbed.engines(count) as ranges,
            self.testbed.registry() as registry,
            services(self.testbed, self.redis, registry, ranges) as here,
        ):
            before = here.cpu()
            self._ours(here, self.large, f"ours_first_{count}")
            self.cpu = {name: round(spent - before[name], 2) for name, spent in here.cpu().items()}
            self.seconds["ours_ingest"].append(self.phases[f"ours_first_{count}"][-1]["push_seconds"])
            self.say("ours_ingest")
            self._copy(registry.storage)
            if count == 1:
                self._registry_alone(registry.storage)
                self._ours(here, self.large, "ours_again_1")
                self._ours(here, self.deltas[0], "ours_delta_1")
                registry.stop()
                self._ours(here, self.deltas[1], "ours_fallback_delta")
            self.peaks = {name: max(self.peaks.get(name, 0), peak) for name, peak in here.peaks().items()}

    def ours_small_files(self) -> None:
        with (
            self.testbed.engines(1) as ranges,
            self.testbed.registry() as registry,
            services(self.testbed, self.redis, registry, ranges) as here,
        ):
            self._ours(here, self.small, "ours_small_files_1")

    def ours_by_tar(self) -> None:
        """The whole image by the tar server, the registry down from the start: what that takes of memory."""
        with (
            self.testbed.engines(1) as ranges,
            self.testbed.registry() as registry,
            services(self.testbed, self.redis, registry, ranges) as here,
        ):
            registry.stop()
            self._ours(here, self.large, "ours_fallback_first")
            self.peaks = {name: max(self.peaks.get(name, 0), peak) for name, peak in here.peaks().items()}

    def _ours(self, here: Ours, image: str, name: str) -> None:
        before = sum(here.cpu().values())
        with timed(self.seconds[name]):
            phases = here.deploy(image)
        self.work[name].append(sum(here.cpu().values()) - before)
        self.phases[name].append(phases)
        self.say(name)
        self.verify(list(here.ranges.values()), image)

    def _copy(self, storage: Path) -> None:
        """The same bytes from one file to another on the same disk, each synced: what the disk alone would take."""
        target = self.testbed.lab.folder / "copy"
        with timed(self.seconds["copy"]):
            copied(storage / "docker/registry/v2/blobs", target)
        self.say("copy")
        shutil.rmtree(target)

    def _registry_alone(self, storage: Path) -> None:
        """The same blobs into another empty registry, by a client that does nothing but send: the registry's share."""
        blobs = sorted((storage / "docker/registry/v2/blobs").rglob("data"), key=lambda path: -path.stat().st_size)
        with self.testbed.registry() as registry, timed(self.seconds["registry_alone"]):
            upload_alone(registry, blobs)
        self.say("registry_alone")

    # ---- the sum ----

    def report(self, options: argparse.Namespace) -> dict[str, Any]:
        median = {name: round(statistics.median(all_), 3) for name, all_ in sorted(self.seconds.items())}
        ratios = {
            name: round(median[above] / median[below], 4)
            for name, (above, below) in RATIOS.items()
            if above in median and below in median
        }
        phases = {
            name: {
                key: round(statistics.median(one[key] for one in all_), 3)
                for key in all_[0]
                if all(key in one for one in all_)
            }
            for name, all_ in self.phases.items()
        }
        reached = {name: ratios[name] <= TARGETS[name][0] for name in ratios if name in TARGETS}
        if options.size >= PEAK_AT_BYTES:
            reached |= {f"peak memory of {name}": self.peaks[name] <= most for name, most in PEAK_BYTES.items()}
        return {
            "image_bytes": self.testbed.image(self.large).size_bytes,
            "repeats": options.repeats,
            "seconds": median,
            "ratios": ratios,
            "reached": reached,
            "phases": phases,
            "cpu_seconds": {name: round(statistics.median(all_), 2) for name, all_ in self.work.items()},
            "cpu_seconds_of_ours": self.cpu,
            "peak_memory_bytes": self.peaks,
        }


def main(argv: Sequence[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m bench transfer", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1_400_000_000, help="bytes of the large image (%(default)s)")
    parser.add_argument("--files", type=int, default=50_000, help="files of the image of small files; 0: without it")
    parser.add_argument("--ranges", default="1,4", help="how many ranges at once, comma separated (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="how often each way is run (%(default)s)")
    parser.add_argument(
        "--ours-only", action="store_true", help="without the other ways: what memory and time ours takes"
    )
    parser.add_argument("--mounted", action="store_true", help="mounted layers instead, on each kind of store, once")
    parser.add_argument("--huge", type=int, default=10_000_000_000, help="bytes of the very large image; 0: without it")
    parser.add_argument("--many", type=int, default=16, help="ranges that mount one image at once (%(default)s)")
    parser.add_argument("--sent", action="store_true", help="with --mounted: layers are sent to the registry over HTTP")
    parser.add_argument("--kinds", default=",".join(mounted.KINDS), help="of stores, comma separated (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where the laboratory is (default: a temporary folder)")
    options = parser.parse_args(list(argv))
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/var/tmp") as folder, Lab(options.folder or folder) as lab:
        if options.mounted:
            return mounted.measure(lab, options)
        testbed = Testbed(lab, lab.engine("host"))
        root_tar = lab.base_image_tar()
        sys.stderr.write("building the images\n")
        large = build_large(testbed.host, root_tar, options.size)
        run = MethodRun(
            testbed,
            lab.redis(),
            large,
            build_small_files(testbed.host, root_tar, options.files) if options.files else "",
            (build_delta(testbed.host, large, 1, DELTA_BYTES), build_delta(testbed.host, large, 2, DELTA_BYTES)),
        )
        for repeat in range(options.repeats):
            sys.stderr.write(f"repeat {repeat + 1} of {options.repeats}\n")
            for count in [int(one) for one in options.ranges.split(",")]:
                if not options.ours_only:
                    run.tar(count)
                    run.push_pull(count)
                run.ours(count)
            if options.ours_only:
                run.ours_by_tar()
            if options.files:
                if not options.ours_only:
                    run.tar_small_files()
                run.ours_small_files()
        result = run.report(options)
    _table(result)
    return result


def _table(result: dict[str, Any]) -> None:
    """For people, on stderr."""
    lines = ["", f"{'seconds (medians)':<26}"]
    lines += [f"  {name:<24} {seconds:8.2f}" for name, seconds in result["seconds"].items()]
    lines += ["", f"{'ratio':<26} {'is':>8} {'reach':>8} {'stretch':>8}"]
    for name, ratio in result["ratios"].items():
        reach, stretch = TARGETS.get(name, ("", ""))
        lines.append(f"  {name:<24} {ratio:8.3f} {reach:>8} {stretch:>8}")
    lines += ["", "CPU seconds of all that took part (medians)"]
    lines += [f"  {name:<24} {seconds:8.2f}" for name, seconds in result["cpu_seconds"].items()]
    lines += ["", "CPU seconds of a first deployment, ours"]
    lines += [f"  {name:<24} {seconds:8.2f}" for name, seconds in result["cpu_seconds_of_ours"].items()]
    lines += ["", "peak memory, MB"]
    lines += [f"  {name:<24} {peak / 1e6:8.1f}" for name, peak in result["peak_memory_bytes"].items()]
    sys.stderr.write("\n".join(lines) + "\n")
