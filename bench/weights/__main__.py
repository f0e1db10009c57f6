"""`make bench-weights`: the seed job beside the usual tools and a raw loop, in one run on one machine.

Every figure that counts is a ratio of medians taken side by side, or a count of bytes:

- speedup_throttled, speedup_unthrottled: seconds of `snapshot_download` to disk and `upload_file` to S3, over the seed job's;
  throttled is 25 MB/s per connection to the hub.
- fraction_of_ceiling: seconds of a raw loop of ranged reads and part uploads over the seed job's; the worse of both profiles.
- scratch_bytes, peak_rss_mib: the most of any run.
- noop_ratio: a run with nothing to do, over one listing and a HEAD per object; the worse of whole processes and of requests alone.
- reread_bytes: bytes that the hub sent more than once over ten kills at random moments; reread_bytes_allowed: what the parts in
  flight allow for.
- throttled_scaling: bytes per second of 1, 2, 4 and 8 files over as many connections, over connections x 25 MB/s; the worst.

The last line is JSON with these. The plot of the scaling goes to docs/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench.weights.places import (
    BUCKET,
    GIB,
    HERE,
    HUB_NONE,
    MIB,
    Bench,
    BenchmarkFailed,
    HubProcess,
    Run,
    make_checkpoint,
    roomy_folder,
)
from bench.weights.plot import scaling_plot
from embedded.hub.repository import Repository, add
from embedded.progress import PlainReport
from embedded.toolchain import ensure_tools
from embedded.toolchain.commands import terminated_like_interrupted
from mistral_on_l4.jobs.weights_limits import Limits

RATE = 25e6
SHARDS, SHARD_BYTES = 8, 256 * MIB
COUNTS = (1, 2, 4, 8)
KILLS = 10
PREFIX = "mistral-24b/"
PLOT = Path(__file__).resolve().parents[2] / "docs" / "weights-scaling.svg"
# Checkpoints twice (one of 8 shards, one of a single file), the bucket with parts and object, a download.
NEEDED_BYTES = 9 * GIB


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.weights")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each timed thing; the median counts (default 5)")
    parser.add_argument(
        "--folder", type=Path, help="where content and bucket lie (default: memory if there is enough, else TMPDIR)"
    )
    arguments = parser.parse_args()
    tools = ensure_tools(["versitygw", "storage-initializer-python"], PlainReport())
    place = arguments.folder or roomy_folder(NEEDED_BYTES)
    say(
        f"machine: {os.cpu_count()} cores, {platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f}; "
        f"content and bucket in {'memory' if place == Path('/dev/shm') else place or 'the temporary folder'}"
    )
    # A benchmark that is told to stop ends its servers as one that is interrupted does.
    with terminated_like_interrupted(), tempfile.TemporaryDirectory(prefix="bench-weights-", dir=place) as name:
        folder = Path(name)
        bench = Bench(folder, tools["versitygw"], tools["storage-initializer-python"])
        try:
            result = Measurement(bench, folder, arguments.repeats).all()
        except BenchmarkFailed as failure:
            print(f"bench-weights: {failure}", file=sys.stderr)
            return 1
        finally:
            bench.close()
    print(json.dumps(result))
    return 0


class Measurement:
    """All figures of one run of the benchmark."""

    def __init__(self, bench: Bench, folder: Path, repeats: int) -> None:
        self._bench, self._folder, self._repeats = bench, folder, repeats
        self._seeds: list[Run] = []
        self._scratch = 0

    def all(self) -> dict[str, float]:
        root = self._folder / "hub"
        say("making a checkpoint of 2 GiB in 8 shards, and one of a single file")
        repository = make_checkpoint(root, "eight", [SHARD_BYTES] * SHARDS)
        for count in COUNTS[:-1]:
            self._part_of(root, repository, count)
        free = HubProcess(root, self._folder / "hub-free.log", None)
        slow = HubProcess(root, self._folder / "hub-slow.log", RATE)
        try:
            throttled = self._compare("throttled", slow, repository)
            unthrottled = self._compare("unthrottled", free, repository)
            noop = self._nothing_to_do(free, repository)
            reread, allowed = self._kills(slow, repository)
            scaling = self._scaling(slow)
            self._read_back(root, repository)
        finally:
            free.stop()
            slow.stop()
        return {
            "speedup_throttled": round(throttled[0], 2),
            "speedup_unthrottled": round(unthrottled[0], 2),
            "fraction_of_ceiling": round(min(throttled[1], unthrottled[1]), 2),
            "scratch_bytes": max(self._scratch, *(run.disk_bytes for run in self._seeds)),
            "peak_rss_mib": round(max(run.peak_rss_mib for run in self._seeds)),
            "noop_ratio": round(noop, 2),
            "reread_bytes": reread,
            "reread_bytes_allowed": allowed,
            "throttled_scaling": round(scaling, 3),
        }

    def _part_of(self, root: Path, repository: Repository, count: int) -> None:
        """bench/<count>: the first shards of the checkpoint, as a repository of their own."""
        source = root / f".files-{count}"
        source.mkdir()
        names = []
        for number in range(1, count + 1):
            name = f"model-{number:05d}-of-{count:05d}.safetensors"
            names.append(name)
            os.link(repository.folder / f"model-{number:05d}-of-{SHARDS:05d}.safetensors", source / name)
        (source / "config.json").write_text("{}")
        index = {"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}
        (source / "model.safetensors.index.json").write_text(json.dumps(index))
        add(root, f"bench/files-{count}", source)

    def _seed(self, hub: HubProcess, repository: str, **changes: str) -> Run:
        run = self._bench.seed(hub.url, repository, PREFIX, **changes)
        self._seeds.append(run)
        self._scratch = max(self._scratch, self._bench.scratch_bytes())
        return run

    def _compare(self, name: str, hub: HubProcess, repository: Repository) -> tuple[float, float]:
        """(speed-up over the usual way, fraction of the ceiling)."""
        times: dict[str, list[float]] = {"seed": [], "raw loop": [], "usual way": []}
        cpu: dict[str, list[float]] = {way: [] for way in times}
        own_cpu: list[float] = []
        disk = self._folder / "download"
        ways = {
            "seed": lambda: self._seed(hub, repository.id),
            "raw loop": lambda: self._bench.run([str(HERE / "raw_loop.py"), repository.id, BUCKET, PREFIX], hub.url),
            "usual way": lambda: self._bench.run([str(HERE / "usual_way.py"), repository.id, str(disk), BUCKET, PREFIX], hub.url),
        }
        for turn in range(self._repeats):
            for way, measure in ways.items():
                self._bench.wipe(PREFIX)
                others = hub.cpu_seconds() + self._bench.server_cpu_seconds()
                run = measure()
                times[way].append(run.seconds)
                cpu[way].append(run.cpu_seconds + hub.cpu_seconds() + self._bench.server_cpu_seconds() - others)
                if way == "seed":
                    own_cpu.append(run.cpu_seconds)
            shutil.rmtree(disk)
            shutil.rmtree(self._bench.home)
            self._bench.home.mkdir()
            say(f"{name} {turn + 1} of {self._repeats}: " + ", ".join(f"{way} {found[-1]:.2f} s" for way, found in times.items()))
        medians = {way: statistics.median(found) for way, found in times.items()}
        size = sum(entry.size for entry in repository.entries.values())
        say(f"{name}: " + ", ".join(f"{way} {found:.2f} s ({size / 1e6 / found:.0f} MB/s)" for way, found in medians.items()))
        spent = ", ".join(f"{way} {statistics.median(found) / (size / GIB):.2f}" for way, found in cpu.items())
        say(
            f"{name}, CPU seconds per GiB of tool, hub and store together: {spent}; "
            f"of the seed job alone {statistics.median(own_cpu) / (size / GIB):.2f}"
        )
        return medians["usual way"] / medians["seed"], medians["raw loop"] / medians["seed"]

    def _nothing_to_do(self, hub: HubProcess, repository: Repository) -> float:
        self._bench.wipe(PREFIX)
        self._seed(hub, repository.id)
        before = hub.sent_bytes()
        whole: dict[str, list[float]] = {"seed": [], "list and head": []}
        requests: dict[str, list[float]] = {"seed": [], "list and head": []}
        order = {"WEIGHTS_REPOSITORY": repository.id, "WEIGHTS_PREFIX": PREFIX}
        for _ in range(self._repeats):
            run = self._seed(hub, repository.id)
            if "nothing to do" not in run.output:
                raise BenchmarkFailed(f"the second run did something: {run.output[-300:]}")
            whole["seed"].append(run.seconds)
            requests["seed"].append(float(self._bench.run([str(HERE / "nothing_to_do.py")], hub.url, **order).output))
            bare = self._bench.run([str(HERE / "list_and_head.py"), BUCKET, PREFIX], HUB_NONE)
            whole["list and head"].append(bare.seconds)
            requests["list and head"].append(float(bare.output))
        if hub.sent_bytes() != before:
            raise BenchmarkFailed("a run with nothing to do read from the hub")
        ratios = []
        for what, times in (("processes", whole), ("requests alone", requests)):
            seed, bare_seconds = statistics.median(times["seed"]), statistics.median(times["list and head"])
            ratios.append(seed / bare_seconds)
            say(f"nothing to do, {what}: {seed * 1e3:.0f} ms, list and head {bare_seconds * 1e3:.0f} ms, no byte moved")
        return max(ratios)

    def _kills(self, hub: HubProcess, repository: Repository) -> tuple[int, int]:
        """(bytes sent again, bytes that may be)."""
        self._bench.wipe(PREFIX)
        before = hub.sent_bytes()
        moments, kills = random.Random(24), 0
        for _ in range(KILLS):
            process = self._bench.start_seed(hub.url, repository.id, PREFIX)
            time.sleep(moments.uniform(0.6, 2.4))
            if process.poll() is None:
                kills += 1
                process.kill()
            process.wait(10)
        last = self._seed(hub, repository.id)
        wanted = {path: entry for path, entry in repository.entries.items() if path.startswith(("model", "config", "tokenizer"))}
        index = repository.entries["model.safetensors.index.json"].size
        manifest = {file["path"]: file["sha256"] for file in self._bench.manifest(PREFIX)["files"]}
        verified = self._bench.seed(
            HUB_NONE, repository.id, PREFIX, WEIGHTS_MODE="verify"
        )  # reads every byte back and compares with the manifest
        if manifest != {path: entry.sha256 for path, entry in wanted.items()} or "is whole" not in verified.output:
            raise BenchmarkFailed("after the kills the bucket differs from the hub")
        # The index is read once more by each run, to check it before anything else.
        again = hub.sent_bytes() - before - sum(entry.size for entry in wanted.values()) - (kills + 1) * index
        allowed = kills * Limits().parts_in_flight * Limits().part_mib * MIB
        say(
            f"{kills} kills at random moments, then {last.seconds:.1f} s: {again / MIB:.0f} MiB sent again, "
            f"{allowed / MIB:.0f} MiB allowed, every byte as on the hub"
        )
        return max(again, 0), allowed

    def _scaling(self, hub: HubProcess) -> float:
        rates: dict[int, float] = {}
        for count in COUNTS:
            name = "bench/eight" if count == SHARDS else f"bench/files-{count}"
            times = []
            for _ in range(self._repeats):
                self._bench.wipe(PREFIX)
                times.append(self._seed(hub, name, WEIGHTS_CONNECTIONS=str(count), WEIGHTS_UPLOADS="4").seconds)
            rates[count] = count * SHARD_BYTES / statistics.median(times)
            share = rates[count] / (count * RATE)
            say(f"{count} files over {count} connections: {rates[count] / 1e6:.1f} MB/s, {share:.2f} of the limit")
        PLOT.parent.mkdir(exist_ok=True)
        PLOT.write_text(scaling_plot({count: rate / 1e6 for count, rate in rates.items()}, RATE / 1e6))
        return min(rate / (count * RATE) for count, rate in rates.items())

    def _read_back(self, root: Path, repository: Repository) -> None:
        """KServe's storage-initializer on what was seeded: 8 files, and as many bytes in one."""
        one = make_checkpoint(root, "one", [SHARDS * SHARD_BYTES])
        fresh = HubProcess(root, self._folder / "hub-one.log", None)
        try:
            for name, count in ((repository.id, SHARDS), (one.id, 1)):
                self._bench.wipe(PREFIX)
                self._bench.seed(fresh.url, name, PREFIX)
                seconds = statistics.median(self._initialize() for _ in range(self._repeats))
                say(f"storage-initializer reads 2 GiB in {count} file{'s' if count > 1 else ''}: {seconds:.2f} s")
        finally:
            fresh.stop()

    def _initialize(self) -> float:
        target = self._folder / "mnt-models"
        target.mkdir()
        try:
            return self._bench.run([str(HERE / "read_back.py"), f"s3://{BUCKET}/{PREFIX}", str(target)], HUB_NONE).seconds
        finally:
            shutil.rmtree(target)


if __name__ == "__main__":
    sys.exit(main())
