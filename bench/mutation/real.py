"""Mutants as real previews: Pulumi's own engine runs the program and hands what it declares to the pack.

A mutant of a stack file is a file of its own. A mutant of a manifest changes what the program tells the engine, on its way there:
a small program beside the real one wraps the SDK's connection to the engine, and then runs the real one.
"""

from __future__ import annotations

import json
import runpy
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format

from bench.mutation.mutants import FileMutant, ManifestMutant, manifest_mutants
from bench.mutation.preview import shipped
from bench.mutation.unforeseen import mistakes
from embedded.home import CHECKOUT
from policies.offline import Declared

_PROGRAM = """\
import sys

sys.path.insert(0, {checkout!r})
from bench.mutation.real import run_broken

run_broken({label!r})
"""
PREVIEW_SECONDS = 300


@dataclass(frozen=True)
class RealVerdict:
    """gate: policies, program (settings, planner or the program itself), or "" for none; by: rules or first words of the error."""

    gate: str
    by: str


class Previews:
    """Runs previews of the AWS stack on stand-in plugins, with an empty account."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment, self._folder = {**environment, "PULUMI_DEBUG_COMMANDS": "true"}, folder

    def judge(self, mutant: FileMutant | ManifestMutant) -> RealVerdict:
        config = shipped(mutant.stack)
        project = CHECKOUT
        if isinstance(mutant, FileMutant):
            config = mutant.config(config)
        else:
            project = self._project(mutant.label)
        file, events = self._folder / f"Pulumi.{mutant.stack}.yaml", self._folder / "events.jsonl"
        decoded = {key: json.loads(text) if text[:1] in "[{" else text for key, text in config.items()}
        file.write_text(yaml.safe_dump({"config": decoded}))
        events.unlink(missing_ok=True)
        command = ["pulumi", "preview", "-s", mutant.stack, "--config-file", str(file), "--non-interactive"]
        command += ["--event-log", str(events), "--policy-pack", str(CHECKOUT / "policies")]
        done = subprocess.run(
            command, cwd=project, env=self._environment, check=False, capture_output=True, text=True, timeout=PREVIEW_SECONDS
        )
        return _verdict(done.returncode, events, done.stdout + done.stderr)

    def _project(self, label: str) -> Path:
        folder = self._folder / "project"
        folder.mkdir(exist_ok=True)
        document = yaml.safe_load((CHECKOUT / "Pulumi.yaml").read_text())
        document["runtime"]["options"]["virtualenv"] = str(CHECKOUT / ".venv")
        (folder / "Pulumi.yaml").write_text(yaml.safe_dump(document))
        (folder / "__main__.py").write_text(_PROGRAM.format(checkout=str(CHECKOUT), label=label))
        return folder


def _verdict(code: int, events: Path, output: str) -> RealVerdict:
    found: dict[str, None] = {}
    if events.exists():
        for line in events.read_text().splitlines():
            event = json.loads(line).get("policyEvent")
            if event and event["enforcementLevel"] == "mandatory":
                found[event["policyName"]] = None
    if found:
        return RealVerdict("policies", ", ".join(found))
    if code == 0:
        return RealVerdict("", "")
    errors = [line.strip() for line in output.splitlines() if "error:" in line or "Error:" in line]
    return RealVerdict("program", errors[0] if errors else "ended early")


def run_broken(label: str) -> None:
    """Runs the real program with one of the manifest mutants in the way of what it declares."""
    from pulumi.runtime import settings

    mutant = next(found for found in (*manifest_mutants(), *mistakes()) if found.label == label)
    monitor: Any = settings.get_monitor()
    json_of: Any = json_format
    register = monitor.RegisterResource
    dropped: set[str] = set()

    def broken(request: Any, *arguments: Any, **keywords: Any) -> Any:
        _drop_edges(request, dropped)
        inputs = json_of.MessageToDict(request.object)
        if not mutant.means(Declared(request.type, request.name, "", inputs)):
            return register(request, *arguments, **keywords)
        if mutant.change is not None:
            mutant.change(inputs)
            request.object.CopyFrom(json_of.ParseDict(inputs, type(request.object)()))
            return register(request, *arguments, **keywords)
        from pulumi.runtime.proto import resource_pb2

        urn = f"{request.parent}::{request.type}::{request.name}"
        dropped.add(urn)
        return resource_pb2.RegisterResourceResponse(urn=urn, object=request.object)

    monitor.RegisterResource = broken
    runpy.run_path(str(CHECKOUT / "__main__.py"), run_name="__main__")


def _drop_edges(request: Any, dropped: set[str]) -> None:
    """Takes what was never registered out of a request's dependencies."""
    kept = [urn for urn in request.dependencies if urn not in dropped]
    del request.dependencies[:]
    request.dependencies.extend(kept)
    for found in request.propertyDependencies.values():
        urns = [urn for urn in found.urns if urn not in dropped]
        del found.urns[:]
        found.urns.extend(urns)
