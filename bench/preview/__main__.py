"""`make bench-preview`: a preview of an AWS stack without credentials, against one of a program without resources, in one run.

Whole commands in turn, in a home of their own, and the medians of what each took:

- preview_ratio: `make preview STACK=dev`, from the shell to its exit, over `pulumi preview` of a program without resources that
  imports the same SDK classes.
- policies_ratio: `pulumi preview -s dev --policy-pack policies` over the same without the pack.

The last line is JSON with both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.empty_program import write_empty_program
from bench.machine import machine
from embedded.cli.preview import FOLDER, detached_environment
from embedded.home import CHECKOUT, HOME_VARIABLE, LocalHome

STACK = "dev"
COMMAND_SECONDS = 300


@dataclass(frozen=True)
class Timed:
    """A command and where it runs."""

    words: str
    command: list[str]
    folder: Path
    environment: Mapping[str, str]

    def seconds(self) -> float:
        start = time.monotonic()
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        took = time.monotonic() - start
        if done.returncode:
            raise SystemExit(f"{' '.join(self.command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return took


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.preview")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command; the median counts (default 7)")
    repeats = parser.parse_args().repeats
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-preview-") as folder:
        medians = measure(commands(Path(folder)), repeats)
    empty, whole, plain, checked = medians
    print(json.dumps({"preview_ratio": round(whole / empty, 2), "policies_ratio": round(checked / plain, 2)}))
    return 0


def commands(folder: Path) -> list[Timed]:
    home = LocalHome(folder / "home")
    # The very folder that the command itself uses in this home.
    environment = detached_environment(LocalHome(home.root / FOLDER), STACK, Console())
    empty = folder / "empty"
    write_empty_program(empty, "eks")
    subprocess.run(["pulumi", "stack", "init", "empty"], cwd=empty, env=environment, check=True, capture_output=True)
    preview = ["pulumi", "preview", "--non-interactive", "--stack"]
    return [
        Timed("pulumi preview of the SDK classes alone", [*preview, "empty"], empty, environment),
        Timed(
            f"make preview STACK={STACK}",
            ["make", "-s", "preview", f"STACK={STACK}"],
            CHECKOUT,
            {**os.environ, HOME_VARIABLE: str(home.root)},
        ),
        Timed(f"pulumi preview -s {STACK}", [*preview, STACK], CHECKOUT, environment),
        Timed("the same with --policy-pack policies", [*preview, STACK, "--policy-pack", "policies"], CHECKOUT, environment),
    ]


def measure(timed: list[Timed], repeats: int) -> list[float]:
    """Median seconds of each, taken in turn."""
    taken: list[list[float]] = [[] for _ in timed]
    for turn in range(repeats + 1):
        for one, times in zip(timed, taken, strict=True):
            seconds = one.seconds()
            if turn:  # the first reads files that the others find in memory
                times.append(seconds)
    for one, times in zip(timed, taken, strict=True):
        listed = ", ".join(f"{seconds:.2f}" for seconds in sorted(times))
        print(f"{one.words:<40} {statistics.median(times):6.2f} s   ({listed})", flush=True)
    return [statistics.median(times) for times in taken]


if __name__ == "__main__":
    sys.exit(main())
