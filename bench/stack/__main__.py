"""`make bench-stack`: the local stack against a careful person with a shell, on one machine, in one run.

Every figure that counts is a ratio of two times taken here, one beside the other:

- warm_up_ratio: `demo up` from a stopped cluster to a chat answer of both services, over the same by hand: start the same
  cluster, `kubectl apply` the very manifests that the program declared, wait where one has to wait, curl.
- preview_ratio: `pulumi preview` of the stack over one of an empty Python program.
- per_service_growth: what a service adds to a preview between 10 and 50 services, over the same between 2 and 10.

The last line is JSON with these and with second_up_changes, idle_rss_mib and down_leftovers, and of the random changes and kills
(chaos.py) cases, came_up and data_lost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.machine import machine
from bench.stack.by_hand import ByHand
from bench.stack.chaos import Chaos
from bench.stack.measured import MeasuredStack, resident_mib
from embedded.home import LocalHome
from embedded.leftovers import leftovers
from embedded.toolchain.commands import terminated_like_interrupted

SERVICE_COUNTS = (2, 10, 50)
GROWTH_REPEATS = 7


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.stack")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each timed thing; the median counts (default 3)")
    parser.add_argument("--turns", type=int, default=6, help="random changes and kills (default 6; bench.stack.chaos does 30)")
    given = parser.parse_args()
    repeats, turns = given.repeats, given.turns
    print(machine(), flush=True)
    with terminated_like_interrupted(), tempfile.TemporaryDirectory(prefix="bench-stack-") as folder:
        home = LocalHome(Path(folder) / "home")
        stack = MeasuredStack(home, Path(folder))
        try:
            result = measure(stack, ByHand(stack), repeats)
            say(f"{turns} random changes and kills, each followed by an up")
            outcome = Chaos(stack, Path(folder), seed=1).run(turns)
            result |= outcome.figures()
        finally:
            info = home.cluster() if home.cluster_file.exists() else None
            stack.demo("down", "--purge", check=False)
        result["down_leftovers"] = len(leftovers(home, info)) + int(home.root.exists())
    print(json.dumps(result))
    return 0


def measure(stack: MeasuredStack, by_hand: ByHand, repeats: int) -> dict[str, float]:
    """All figures but the last, each timed thing next to what it is compared with."""
    say("building what is missing, and a first up")
    stack.demo("up")
    manifests = by_hand.manifests()
    up_times, hand_times = [], []
    for turn in range(repeats):
        stack.demo("down")
        up_times.append(timed(lambda: stack.demo("up")))
        stack.demo("down")
        hand_times.append(timed(lambda: by_hand.up(manifests)))
        by_hand.down(manifests)
        say(f"run {turn + 1} of {repeats}: demo up {up_times[-1]:.1f} s, by hand {hand_times[-1]:.1f} s")
    stack.demo("up")
    stack.demo("up")
    changed = stack.last_changes()
    second_up_changes = sum(changed.values())
    say(f"a second up changed {changed or 'nothing'}")
    time.sleep(5)
    by_process = resident_mib(stack.home)
    for name, mib in sorted(by_process.items(), key=lambda item: -item[1]):
        print(f"  {mib:7.1f} MiB  {name}", flush=True)

    empty = stack.empty_program()
    stack.preview(empty)
    stack.preview(stack.program)
    pairs = [(timed(lambda: stack.preview(stack.program)), timed(lambda: stack.preview(empty))) for _ in range(repeats)]
    ours, nothing = (statistics.median(times) for times in zip(*pairs, strict=True))
    say(f"preview: {ours:.2f} s, of an empty program {nothing:.2f} s")

    programs = {count: stack.program_with_services(count) for count in SERVICE_COUNTS}
    times: dict[int, list[float]] = {count: [] for count in SERVICE_COUNTS}
    for _ in range(GROWTH_REPEATS):
        for count, program in programs.items():
            times[count].append(timed(lambda program=program: stack.preview(program, stack="many")))  # type: ignore[misc]
    # A difference of few tenths of a second: what disturbs a run only ever adds to it, so the least disturbed ones count.
    least = {count: min(times[count]) for count in SERVICE_COUNTS}
    for count in SERVICE_COUNTS:
        say(f"preview with {count} services: {', '.join(f'{one:.2f}' for one in sorted(times[count]))} s")
    growth = ((least[50] - least[10]) / 40) / ((least[10] - least[2]) / 8)
    return {
        "warm_up_ratio": round(statistics.median(up_times) / statistics.median(hand_times), 2),
        "preview_ratio": round(ours / nothing, 2),
        "per_service_growth": round(growth, 2),
        "second_up_changes": second_up_changes,
        "idle_rss_mib": round(sum(by_process.values())),
    }


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
