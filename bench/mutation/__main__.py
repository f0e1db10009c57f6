"""`make mutation`: break the shipped stacks in many ways, one at a time, and count which gate catches each.

A mutant of a stack file goes through the settings, then the planner (with the program's own refusals), then the policies; a
mutant of the program's manifests meets the policies alone. Advice does not count as caught. Some run as real previews as well, in
Pulumi's own engine, and must end alike. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pulumi

from bench.mutation.mutants import FileMutant, ManifestMutant, file_mutants, manifest_mutants
from bench.mutation.preview import record, shipped
from bench.mutation.unforeseen import added, file_mistakes, mistakes, sweep
from mistral_on_l4.config.settings import SettingsError, settings_of_config
from mistral_on_l4.planner import PlanError, plan_stack
from policies.offline import Recording, analyze

GATES = ("settings", "planner", "policies")
REACH = 0.95
# Of the sweep's changes, one in so many is judged.
EVERY = 29


@dataclass(frozen=True)
class Verdict:
    """gate: which one caught the mutant, "" for none; by: the rule, or the first words of the refusal."""

    gate: str
    by: str


def judge_file(mutant: FileMutant) -> Verdict:
    config = mutant.config(shipped(mutant.stack))
    try:
        settings = settings_of_config(config, f"Pulumi.{mutant.stack}.yaml")
    except SettingsError as error:
        return Verdict("settings", error.problems[0])
    try:
        plan = plan_stack(settings, stack=mutant.stack)
    except PlanError as error:
        return Verdict("planner", str(error))
    if plan.misfits:
        return Verdict("planner", plan.misfits[0])
    try:
        recording = record(mutant.stack, config)
    except pulumi.RunError as error:
        return Verdict("planner", str(error))
    return judge_recording(recording)


def judge_recording(recording: Recording) -> Verdict:
    mandatory = [finding for finding in analyze(recording) if finding.mandatory]
    return Verdict("policies", ", ".join(dict.fromkeys(finding.policy for finding in mandatory))) if mandatory else Verdict("", "")


@dataclass(frozen=True)
class Row:
    """One mutant's outcome offline. mutant: what a real preview can run as well, None for what only exists as a recording."""

    where: str
    label: str
    verdict: Verdict
    mutant: FileMutant | ManifestMutant | None = None


def judge_all(stacks: dict[str, Recording]) -> Iterator[Row]:
    for file_mutant in (*file_mutants(), *file_mistakes()):
        with contextlib.redirect_stderr(io.StringIO()):
            yield Row(f"{file_mutant.stack} file", file_mutant.label, judge_file(file_mutant), file_mutant)
    for mutant in (*manifest_mutants(), *mistakes()):
        verdict = judge_recording(mutant.recording(stacks[mutant.stack]))
        yield Row(f"{mutant.stack} manifest", mutant.label, verdict, mutant)
    for label, change in added():
        yield Row("dev resources", label, judge_recording(change(stacks["dev"])))
    for stack, recording in stacks.items():
        for label, changed in sweep(recording, EVERY):
            yield Row(f"{stack} sweep", label, judge_recording(changed))


def run_for_real(rows: list[Row], wanted: int) -> tuple[int, list[str]]:
    """How many mutants ran as real previews, and those on which the engine and the recording differ."""
    from rich.console import Console

    from bench.mutation.real import Previews
    from embedded.cli.preview import detached_environment
    from embedded.home import LocalHome

    able = [row for row in rows if row.mutant is not None and row.mutant.stack == "dev"]
    chosen = able[:: max(1, len(able) // wanted)][:wanted] if wanted else []
    differ: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        home = LocalHome(Path(folder) / "home")
        previews = Previews(detached_environment(home, "dev", Console(stderr=True)), Path(folder)) if chosen else None
        for row in chosen:
            assert previews is not None
            assert row.mutant is not None
            real = previews.judge(row.mutant)
            same = bool(real.gate) == bool(row.verdict.gate)
            print(f"real  {row.label:<50} {real.gate or 'MISSED':<9} {' '.join(real.by.split())[:110]}", flush=True)
            if not same:
                differ.append(f"{row.label}: offline {row.verdict.gate or 'missed'}, in the engine {real.gate or 'missed'}")
    return len(chosen), differ


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.mutation")
    parser.add_argument("--real", type=int, default=40, help="mutants that also run as real previews (default 40, 4 s each)")
    wanted = parser.parse_args().real
    started = time.monotonic()
    stacks = {stack: record(stack, shipped(stack)) for stack in ("local", "dev")}
    alarms = [f"{stack}: {verdict.by}" for stack in stacks if (verdict := judge_recording(stacks[stack])).gate]
    if alarms:
        print(f"a shipped stack is itself refused, so the run would prove nothing: {'; '.join(alarms)}", file=sys.stderr)
        return 1
    rows = list(judge_all(stacks))
    _table([(row.where, row.label, row.verdict) for row in rows])
    run, differ = run_for_real(rows, wanted)
    caught = [row for row in rows if row.verdict.gate]
    for line in differ:
        print(f"differs: {line}")
    result = {
        "mutants": len(rows),
        "caught": len(caught),
        "real": {"run": run, "agree": run - len(differ)},
        "false_alarms": len(alarms),
        "by": {gate: sum(row.verdict.gate == gate for row in rows) for gate in GATES},
        "missed": [f"{row.where}: {row.label}" for row in rows if not row.verdict.gate],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 0 if len(caught) >= REACH * len(rows) and not differ else 1


def _table(rows: list[tuple[str, str, Verdict]]) -> None:
    width = max(len(label) for _, label, _ in rows)
    print(f"{'where':<15} {'what was broken':<{width}}  {'caught by':<9} rule or refusal")
    for where, label, verdict in rows:
        by = " ".join(verdict.by.split())
        print(f"{where:<15} {label:<{width}}  {verdict.gate or 'MISSED':<9} {by if len(by) <= 110 else by[:109] + '…'}")


if __name__ == "__main__":
    sys.exit(main())
