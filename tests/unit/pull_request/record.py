"""Makes the recordings that the comment's golden tests read: event streams of real previews, and the plans beside them.

    eval "$(make -s env)"
    python tests/unit/pull_request/record.py local two-gpu-nodes

(and without that shell for dev, which is previewed on stand-ins)
previews the shipped stack with the scenario's change (see SCENARIOS) and writes recorded/<stack>-<scenario>.jsonl and
.plan.json; `base` is the stack as shipped. Only what the comment does not read (`outputs`, the long lists of policies that passed) and paths of the
machine that recorded are taken out; nothing is written by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(PROJECT))

import yaml  # noqa: E402

from mistral_on_l4.config.settings import settings_of_config  # noqa: E402
from mistral_on_l4.planner import plan_stack  # noqa: E402
from mistral_on_l4.planner.document import document  # noqa: E402

RECORDED = Path(__file__).with_name("recorded")
PREFIX = "mistral-on-l4:"


def _service(config: dict[str, Any], name: str, **changes: Any) -> None:
    config.setdefault(f"{PREFIX}services", {}).setdefault(name, {}).update(changes)


def _w4a16_instead_of_fp8(config: dict[str, Any]) -> None:
    _service(config, "mistral-24b-fp8", enabled=False)
    _service(config, "mistral-24b-w4a16", enabled=True)


UNREAD = {"resOutputsEvent", "policyAnalyzeSummaryEvent", "policyRemediateSummaryEvent", "progressEvent", "policyLoadEvent"}
SCENARIOS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "base": lambda _: None,
    "two-gpu-nodes": lambda config: config.update({f"{PREFIX}pools": {"groups": {"l4-1gpu": {"count": 2}}}}),
    "w4a16": _w4a16_instead_of_fp8,
    "larger-volume": lambda config: config.update({f"{PREFIX}objectStore": {"volumeSize": "300Gi"}}),
    "smaller-volume": lambda config: config.update({f"{PREFIX}objectStore": {"volumeSize": "100Gi"}}),
    "misfit": lambda config: _service(config, "mistral-24b-fp8", cpuOffload="off"),
    "forbidden": lambda config: config.update({f"{PREFIX}images": {"overrides": {"engine": "docker.io/vllm/vllm-openai:latest"}}}),
    # The API of the cluster is asked in the preview, and does not answer: see main.
    "failed": lambda _: None,
}


def main() -> None:
    stack, scenario = sys.argv[1], sys.argv[2]
    config = yaml.safe_load((PROJECT / f"Pulumi.{stack}.yaml").read_text())["config"]
    SCENARIOS[scenario](config)
    environment = {**os.environ, "PULUMI_DEBUG_COMMANDS": "true"}
    if scenario == "failed":
        environment["MISTRAL_ON_L4_HOME"] = "/home/user/another-checkout/.local"
    with tempfile.TemporaryDirectory() as folder:
        file, events = Path(folder, f"Pulumi.{stack}.yaml"), Path(folder, "events.jsonl")
        file.write_text(yaml.safe_dump({"config": config}))
        # The local stack's own shell refuses others; `demo preview` has the stand-ins for them, and takes the last --config-file.
        demo = [sys.executable, "-m", "mistral_on_l4", "preview", "--stack", stack]
        command = [*(["pulumi", "preview", "--stack", stack] if stack == "local" else demo), "--config-file", str(file)]
        command += ["--policy-pack", "policies"]
        command += ["--event-log", str(events), "--non-interactive", "--color", "never"]
        done = subprocess.run(command, cwd=PROJECT, env=environment, check=False, capture_output=True, text=True)
        text = "".join(f"{line}\n" for line in map(_without_outputs, events.read_text().splitlines()) if line)
    RECORDED.mkdir(exist_ok=True)
    home = os.environ.get("MISTRAL_ON_L4_HOME") or str(PROJECT / ".local")
    (RECORDED / f"{stack}-{scenario}.jsonl").write_text(text.replace(home, "/home/user/mistral-on-l4/.local"))
    plan = document(plan_stack(settings_of_config(config, file.name), stack=stack))
    (RECORDED / f"{stack}-{scenario}.plan.json").write_text(json.dumps(plan, indent=1) + "\n")
    print(f"{stack} {scenario}: pulumi said {done.returncode}, {text.count('resourcePreEvent')} resources")


def _without_outputs(line: str) -> str:
    event = json.loads(line)
    if UNREAD & set(event):
        return ""
    for state in ("old", "new"):
        if found := ((event.get("resourcePreEvent") or {}).get("metadata") or {}).get(state):
            found.pop("outputs", None)
            # Scripts in ConfigMaps are long, and the comment names no more than their keys.
            data = (found.get("inputs") or {}).get("data")
            if isinstance(data, dict) and found["type"].endswith(":ConfigMap"):
                found["inputs"]["data"] = {key: f"({len(str(text))} characters)" for key, text in data.items()}
    return json.dumps(event, separators=(",", ":"), ensure_ascii=False)


if __name__ == "__main__":
    main()
