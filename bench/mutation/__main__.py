"""`make mutation`: break the shipped stacks in many ways, one at a time, and count which gate catches each.

A mutant of a stack file goes through the settings, then the planner (with the program's own refusals), then the policies; a
mutant of the program's manifests meets the policies alone. Advice does not count as caught. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from dataclasses import dataclass

import pulumi

from bench.mutation.mutants import FileMutant, ManifestMutant, file_mutants, manifest_mutants
from bench.mutation.preview import record, shipped
from mistral_on_l4.config.settings import SettingsError, settings_of_config
from mistral_on_l4.planner import PlanError, plan_stack
from policies.offline import Recording, analyze

GATES = ("settings", "planner", "policies")
REACH = 0.95


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


def main() -> int:
    started = time.monotonic()
    stacks = {stack: record(stack, shipped(stack)) for stack in ("local", "dev")}
    for stack, recording in stacks.items():
        if (verdict := judge_recording(recording)).gate:
            print(f"the shipped stack {stack} is itself refused by {verdict.by}: the run would prove nothing", file=sys.stderr)
            return 1
    rows: list[tuple[str, str, Verdict]] = []
    for mutant in file_mutants():
        with contextlib.redirect_stderr(io.StringIO()):
            rows.append((f"{mutant.stack} file", mutant.label, judge_file(mutant)))
    for change in manifest_mutants():
        rows.append((f"{change.stack} manifest", change.label, judge_recording(_changed(change, stacks))))
    _table(rows)
    caught = [row for row in rows if row[2].gate]
    result = {
        "mutants": len(rows),
        "caught": len(caught),
        "by": {gate: sum(verdict.gate == gate for _, _, verdict in rows) for gate in GATES},
        "missed": [f"{where}: {label}" for where, label, verdict in rows if not verdict.gate],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(result))
    return 0 if len(caught) >= REACH * len(rows) else 1


def _changed(mutant: ManifestMutant, stacks: dict[str, Recording]) -> Recording:
    return mutant.recording(stacks[mutant.stack])


def _table(rows: list[tuple[str, str, Verdict]]) -> None:
    width = max(len(label) for _, label, _ in rows)
    print(f"{'where':<15} {'what was broken':<{width}}  {'caught by':<9} rule or refusal")
    for where, label, verdict in rows:
        by = " ".join(verdict.by.split())
        print(f"{where:<15} {label:<{width}}  {verdict.gate or 'MISSED':<9} {by if len(by) <= 110 else by[:109] + '…'}")


if __name__ == "__main__":
    sys.exit(main())
