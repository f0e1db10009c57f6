"""Waits until an operator that a Subscription asks for is installed: its ClusterServiceVersion has Succeeded.

The version is read through the Subscription, since OLM copies those of other operators into every namespace.

Runs as `python -m mistral_on_l4.jobs.await_operator` in KServe's storage-initializer image (Python 3.11 with requests).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from mistral_on_l4.jobs.cluster_api import Call, in_cluster
from mistral_on_l4.jobs.last_words import say_why

API = "/apis/operators.coreos.com/v1alpha1/namespaces"
# Of a Subscription, by which OLM says that it found no such package, channel or catalogue: waiting does not mend that soon.
_RESOLUTION = "ResolutionFailed"


class NotInstalled(Exception):
    """The operator is not there; the text says what was waited for."""


@dataclass(frozen=True)
class Awaited:
    namespace: str
    subscription: str
    deadline_seconds: float

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Awaited:
        return cls(env["OPERATOR_NAMESPACE"], env["OPERATOR_SUBSCRIPTION"], float(env.get("DEADLINE_SECONDS", "900")))


def problem(awaited: Awaited, call: Call) -> str | None:
    """What is missing, in words; None when the operator is installed. Raises requests.RequestException."""
    base = f"{API}/{awaited.namespace}"
    subscription = _get(call, f"{base}/subscriptions/{awaited.subscription}")
    if subscription is None:
        return f"Subscription {awaited.subscription} is not in {awaited.namespace}"
    status = subscription.get("status") or {}
    name = status.get("installedCSV")
    if not name:
        for condition in status.get("conditions") or []:
            if condition.get("type") == _RESOLUTION and condition.get("status") == "True":
                return f"OLM resolves no version: {condition.get('message', '')}"
        plan = (status.get("installPlanRef") or {}).get("name")
        found = _get(call, f"{base}/installplans/{plan}") if plan else None
        if found and not (found.get("spec") or {}).get("approved", True):
            return f"InstallPlan {plan} in {awaited.namespace} waits for somebody's approval"
        return f"OLM has installed nothing yet for Subscription {awaited.subscription}"
    csv = _get(call, f"{base}/clusterserviceversions/{name}")
    if csv is None:
        return f"ClusterServiceVersion {name} is not in {awaited.namespace} yet"
    phase, message = (str((csv.get("status") or {}).get(key) or "") for key in ("phase", "message"))
    return None if phase == "Succeeded" else f"ClusterServiceVersion {name} is {phase or 'new'}: {message}"


def run(awaited: Awaited, call: Call, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> None:
    """Returns when the operator is installed. Raises NotInstalled at the deadline."""
    start = time.monotonic()
    said = None
    while True:
        try:
            missing = problem(awaited, call)
        except requests.RequestException as error:
            missing = str(error) if isinstance(error, requests.HTTPError) else f"the API does not answer: {type(error).__name__}"
        if missing is None:
            say(f"{awaited.subscription} is installed")
            return
        if time.monotonic() - start > awaited.deadline_seconds:
            raise NotInstalled(f"after {awaited.deadline_seconds:.0f} s: {missing}")
        if missing != said:
            say(f"waiting: {missing}")
            said = missing
        sleep(1.0)


def _get(call: Call, path: str) -> dict[str, Any] | None:
    status, document = call("GET", path, None)
    if status == 404:
        return None
    if status != 200:
        raise requests.HTTPError(f"the Kubernetes API answers {status}: {document.get('message', '')}")
    return document


def main() -> int:
    try:
        call = in_cluster(os.environ)
        if call is None:
            raise NotInstalled("there is no API server here: this script runs in a pod with a service account")
        run(Awaited.from_environment(os.environ), call, lambda line: print(line, flush=True))
        return 0
    except NotInstalled as error:
        sentence = str(error)
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"the wait for the operator failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
