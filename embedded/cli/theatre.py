"""One rehearsal of an AWS stack: its rounds on the stand-in account, and what they showed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console

from embedded import kserve, plugins
from embedded.charts import lay_charts
from embedded.cli.local_pulumi import exit_code
from embedded.cli.recovery import end_orphaned_plugins, forget_locks_of_the_dead, recover
from embedded.cli.states import begun, state_of
from embedded.home import ClusterInfo, LocalHome
from embedded.plugins.aws import LEDGER_VARIABLE
from embedded.plugins.aws.described import Described
from embedded.plugins.aws.faults import VARIABLE as FAULTS_VARIABLE
from embedded.plugins.aws.faults import Switch
from embedded.plugins.aws.ledger import Ledger
from embedded.rehearsal import Edges, edges_in_events, edges_in_state, left_over, refusals, resources_of
from mistral_on_l4.aws.account import cluster_name
from mistral_on_l4.aws.leftovers import Sweep
from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.compare import QUESTION, ask_in_turn
from mistral_on_l4.cli.stacks import project_folder
from mistral_on_l4.cluster.client import ApiError, KubeClient
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.live import in_stack_order, services
from mistral_on_l4.cluster.local import local_stack
from mistral_on_l4.config.names import PROJECT, REHEARSAL_CHARTS
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.config.stack_file import read_stack_file
from mistral_on_l4.files import write_whole
from mistral_on_l4.planner.catalogue import load_catalogue

# One operation of Pulumi; an `up` with seeding takes a minute or two here.
_PULUMI_SECONDS = 1200.0
# Delays of each create and delete, in seconds: AWS's minutes, in small.
_DELAY = (0.0, 1.5)
_GONE_SECONDS = 60.0
_DESCRIBED_SECONDS = 180.0
VIOLATION = "DependencyViolation"
# Hardships that no `up` gets past, and what else the fault plan needs for them.
_FATAL: Mapping[Switch, Mapping[str, Any]] = {
    Switch.QUOTAS: {},
    Switch.DEGRADED: {},
    Switch.CREATE_FAILED: {"create": ["aws:eks/nodeGroup:NodeGroup"]},
}
# An address of documentation (RFC 5737): nobody's.
_SOMEBODY = "203.0.113.7/32"


def _open_to_somebody(config: dict[str, Any]) -> None:
    """Without an address that may reach the cluster, `pulumi up` is refused here as in an account."""
    key = f"{PROJECT}:cluster"
    cluster = dict(config.get(key) or {})
    lent = cluster.get("existing") or (config.get(f"{PROJECT}:network") or {}).get("existingVpcId")
    if not lent and not cluster.get("publicAccessCidrs"):
        typer.echo(f"rehearsed with cluster.publicAccessCidrs [{_SOMEBODY}]: the stack's file names none", err=True)
        config[key] = {**cluster, "publicAccessCidrs": [_SOMEBODY]}


@dataclass
class Theatre:
    """One rehearsal: where it plays, and what has been seen so far."""

    home: LocalHome
    info: ClusterInfo
    stack: str
    settings: Settings
    console: Console
    resources: int = 0
    edges: Edges = field(default_factory=lambda: Edges(0, ()))
    left: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    switches: list[str] = field(default_factory=list)

    @property
    def ledger(self) -> Path:
        return self.home.root / "aws-account.json"

    @property
    def client(self) -> KubeClient:
        return KubeClient.from_kubeconfig(self.home.kubeconfig)

    @property
    def charts(self) -> Path:
        return self.home.root / "charts"

    def clear(self, definitions: Path) -> None:
        """An empty account, and a cluster as EKS hands it over: without KServe, which the embedded one brings along.

        What is taken away goes into the charts that bring it back. definitions: folder with KServe's kinds, of embedded.crds.
        """
        self.ledger.unlink(missing_ok=True)
        client = self.client
        objects = kserve.objects(self.home, self.info)
        lay_charts(self.charts, definitions, [obj for obj in objects if obj["kind"].endswith("WebhookConfiguration")])
        for obj in (*objects, *(json.loads(file.read_text()) for file in sorted(definitions.glob("*.json")))):
            if obj["kind"] in ("StorageClass", "ConfigMap"):
                continue
            with suppress(ApiError):
                client.delete(obj["apiVersion"], obj["kind"], obj["metadata"]["name"])
        deadline = time.monotonic() + _GONE_SECONDS
        while True:
            try:
                client.get("v1", "Namespace", kserve.NAMESPACE)
            except ApiError as error:
                if error.status == 404:
                    break
                raise
            if time.monotonic() > deadline:
                raise Failure(f"namespace {kserve.NAMESPACE} of the embedded cluster does not go within {_GONE_SECONDS:.0f} s")
            time.sleep(0.3)
        # The API server computes its description again when kinds go, which takes longer on a busy machine than the provider waits.
        client.request("GET", "/openapi/v2", timeout=_DESCRIBED_SECONDS)

    # -- rounds --------------------------------------------------------------------------------------------------------

    def calm_round(self) -> None:
        self._rule("up")
        self._must(self.pulumi("up", "--yes", "--skip-preview"), "up")
        self._chat()
        exported = self._export()
        self.resources = len(exported)
        self.edges += edges_in_state(exported)
        self._rule("destroy")
        events = self.home.root / "destroy-events.jsonl"
        events.unlink(missing_ok=True)
        self._must(self.pulumi("destroy", "--yes", "--skip-preview", f"--event-log={events}"), "destroy")
        self.edges += edges_in_events(events, exported)
        self._take_stock()

    def stormy_rounds(self, seed: int) -> None:
        """A node group that fails half made, then destroy; an address that fails, then on; a delete that fails, then again."""
        faults = self.home.root / "faults.json"
        weather: dict[str, Any] = {"delay": _DELAY, "seed": seed}
        self._rule("up, with random delays and a node group that does not come up")
        write_whole(faults, json.dumps({**weather, "create": ["aws:eks/nodeGroup:NodeGroup"]}))
        self._must_not(self.pulumi("up", "--yes", "--skip-preview", faults=faults), "up with a failing node group")
        self._rule("destroy what there is of it")
        self._must(self.pulumi("destroy", "--yes", "--skip-preview", faults=faults), "destroy after a failed up")
        self._take_stock()
        self._rule("up again, with random delays and an address that fails once")
        write_whole(faults, json.dumps({**weather, "create": ["aws:ec2/eip:Eip"], "delete": ["aws:ec2/subnet:Subnet"]}))
        self._must_not(self.pulumi("up", "--yes", "--skip-preview", faults=faults), "up with a failing address")
        self._must(self.pulumi("up", "--yes", "--skip-preview", faults=faults), "up, the second time")
        self._chat()
        exported = self._export()
        self.edges += edges_in_state(exported)
        self._rule("destroy, with random delays and a delete that fails once")
        self._must_not(self.pulumi("destroy", "--yes", "--skip-preview", faults=faults), "destroy with a failing delete")
        self._must(self.pulumi("destroy", "--yes", "--skip-preview", faults=faults), "destroy, the second time")
        self._take_stock()

    def hard_rounds(self, chosen: frozenset[Switch]) -> None:
        """What an `up` cannot get past, one round each; then all that it can, in one round."""
        for switch in sorted(chosen & _FATAL.keys()):
            self._hard_up({switch}, comes_up=False, **_FATAL[switch])
        if passable := chosen - _FATAL.keys():
            self._hard_up(passable, comes_up=True)

    def _hard_up(self, chosen: Set[Switch], comes_up: bool, **plan: Any) -> None:
        names = ", ".join(sorted(chosen))
        faults = self.home.root / "faults.json"
        write_whole(faults, json.dumps({**plan, "with": sorted(chosen)}))
        self._rule(f"up with {names}")
        done = self.pulumi("up", "--yes", "--skip-preview", faults=faults)
        if comes_up:
            self._must(done, f"up with {names}")
            self._chat()
        else:
            self._must_not(done, f"up with {names}")
        self._rule(f"destroy with {names}")
        done = self.pulumi("destroy", "--yes", "--skip-preview", faults=faults)
        if Switch.INTERFACES in chosen:
            # The engine begins nothing more after the first refusal.
            self._must_not(done, f"destroy with {names}")
            self._swept({"network interface", "network"}, f"after a first destroy with {names}")
            done = self.pulumi("destroy", "--yes", "--skip-preview", faults=faults)
        self._must(done, f"destroy with {names}")
        self._swept(set(), f"after destroy with {names}")
        self.switches += sorted(chosen)
        self._take_stock(named_once="network-interface eni-" if Switch.INTERFACES in chosen else "")

    def killed_round(self) -> None:
        """`kill -9` of an up that has begun to make objects; what the next one makes of it, and a destroy."""
        self._rule("up, killed with kill -9 on the way")
        self._kill_up()
        environment = self._environment(None)
        forget_locks_of_the_dead(self.home, self.stack)
        end_orphaned_plugins(self.home)
        for line in recover(self.stack, self.client, environment, project_folder()):
            self.console.print(line, style="dim", markup=False, highlight=False)
        self._rule("up again")
        self._must(self.pulumi("up", "--yes", "--skip-preview"), "up after a killed one")
        self._chat()
        self._rule("destroy")
        self._must(self.pulumi("destroy", "--yes", "--skip-preview"), "destroy after a killed up")
        self._swept(set(), "after a killed up, the next one and destroy")
        self._take_stock()

    def _kill_up(self) -> None:
        """Raises Failure if no object was being created before the end."""
        up = self._begin("up", "--yes", "--skip-preview")
        try:
            # Of what AWS was making nobody knows; `demo sweep` names it (docs/aws.md).
            while not (kinds := self._being_created()) or not all(kind.startswith("kubernetes:apps/") for kind in kinds):
                if up.poll() is not None:
                    raise Failure("`pulumi up` ended before it could be killed")
                time.sleep(0.05)
        finally:
            up.kill()
            up.wait()

    def _being_created(self) -> list[str]:
        return [each["type"] for each in begun(state_of(self.home, self.stack))]

    def _swept(self, kinds: Set[str], when: str) -> None:
        """What `demo sweep` finds in the account: these kinds, no others, and nothing that it could not look at."""
        name = cluster_name(self.settings, self.stack)
        clients = Described(Ledger(self.ledger, self.settings.region))
        found, unseen = Sweep(
            self.stack, name, self.settings.region, load_catalogue(), clients, self.settings.cluster.existing
        ).run()
        shown = {item.kind for item in found}
        if missed := sorted(kinds - shown):
            self.left.append(f"sweep {when}: it did not find {', '.join(missed)}")
        if not kinds and found:
            self.left += [f"sweep {when}: {item.kind} {item.id}" for item in found]
        self.left += [f"sweep {when}: {problem}" for problem in unseen]

    def _chat(self) -> None:
        """Every service is ready and answers."""
        states = in_stack_order(services(self.client, self.settings.namespaces.services), self.settings)
        if waiting := [f"{state.name}: {state.problem}" for state in states if not state.ready]:
            raise Failure("; ".join(waiting))
        connection = Connection(self.client, self.settings, local_stack(self.home.root))
        for one in ask_in_turn(connection, self.stack, states, QUESTION, 12):
            if one.answer:
                self.console.print(f"{one.endpoint.name}: {one.answer.text.strip()}", markup=False, highlight=False)

    def _take_stock(self, named_once: str = "") -> None:
        """named_once: in a refusal of AWS that is allowed once, if it names what stands in the way."""
        self.left += left_over(self.ledger)
        refused = refusals(self.ledger)
        if allowed := [why for why in refused if named_once and VIOLATION in why and named_once in why]:
            refused.remove(allowed[0])
        self.refused += refused
        self.ledger.unlink(missing_ok=True)
        if rest := self._export():
            self.left += [f"in Pulumi's state: {resource['urn'].rpartition('::')[2]}" for resource in rest]

    # -- pulumi --------------------------------------------------------------------------------------------------------

    def _begin(self, *arguments: str, faults: Path | None = None) -> subprocess.Popen[bytes]:
        command = ["pulumi", *arguments, "--stack", self.stack, "--config-file", str(self.config), "--suppress-permalink=true"]
        return subprocess.Popen(command, cwd=project_folder(), env=self._environment(faults))

    def pulumi(self, *arguments: str, faults: Path | None = None) -> int:
        process = self._begin(*arguments, faults=faults)
        try:
            return exit_code(process.wait(_PULUMI_SECONDS), arguments[0])
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(60.0)
            raise Failure(f"`pulumi {arguments[0]}` did not end within {_PULUMI_SECONDS:.0f} s") from None
        except KeyboardInterrupt:
            # The terminal has interrupted pulumi as well, which saves its state and ends.
            process.wait(120.0)
            raise

    def _export(self) -> Sequence[Mapping[str, Any]]:
        command = ["pulumi", "stack", "export", "--stack", self.stack]
        done = subprocess.run(
            command, cwd=project_folder(), env=self._environment(None), capture_output=True, text=True, timeout=60.0, check=False
        )
        if done.returncode:
            raise Failure(f"`pulumi stack export` failed: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
        return resources_of(json.loads(done.stdout))

    @property
    def config(self) -> Path:
        """The stack's file with the local hub in place of Hugging Face; the tracked file is never touched."""
        return self.home.root / f"Pulumi.{self.stack}.yaml"

    def configure(self) -> None:
        """Writes it, from the stack's file as it is now. Pulumi's salt stays: an earlier rehearsal's state needs it."""
        file = read_stack_file(project_folder() / self.config.name)
        file.config[f"{PROJECT}:hub"] = {"endpoint": self.info.hub_url}
        _open_to_somebody(file.config)
        document = {**file.rest, "config": file.config}
        if self.config.exists():
            before = read_stack_file(self.config).rest
            document |= {key: value for key, value in before.items() if key.startswith("encr")}
        write_whole(self.config, yaml.safe_dump(document))

    def _environment(self, faults: Path | None) -> dict[str, str]:
        environment = {
            **plugins.command_environment(self.home, self.info),
            LEDGER_VARIABLE: str(self.ledger),
            REHEARSAL_CHARTS: str(self.charts),
            # Without it the CLI knows no --event-log.
            "PULUMI_DEBUG_COMMANDS": "true",
        }
        environment.pop(FAULTS_VARIABLE, None)
        return environment | ({FAULTS_VARIABLE: str(faults)} if faults else {})

    # -- the end -------------------------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        return [
            *(f"order: {violation}" for violation in self.edges.violated),
            *(f"left over: {item}" for item in self.left),
            *(f"refused: {item}" for item in self.refused),
        ]

    def summary(self) -> str:
        return json.dumps(
            {
                "resources": self.resources,
                "edges_checked": self.edges.checked,
                "edges_violated": len(self.edges.violated),
                "left_over": len(self.left),
                "switches": self.switches,
                # Refusals of a delete, but for the one that an interface of the CNI's explains.
                "violations": sum(VIOLATION in why for why in self.refused),
            }
        )

    def _rule(self, title: str) -> None:
        self.console.rule(title, style="dim", align="left")

    def _must(self, code: int, what: str) -> None:
        if code:
            raise Failure(f"`pulumi {what}` did not finish, see above", code)

    def _must_not(self, code: int, what: str) -> None:
        if not code:
            raise Failure(f"`pulumi {what}` went through, though it had to fail")
