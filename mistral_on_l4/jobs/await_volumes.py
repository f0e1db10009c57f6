"""Stands between the stack and its storage driver at destroy: told to end, it ends when the stack's volumes are deleted.

A claim's deletion returns at once, and the driver deletes the disk some time later. If the driver goes before that, the disk stays
and is billed. So this pod runs as long as the driver is needed: `pulumi destroy` deletes it after the namespaces with the claims
and before the driver, and its end is awaited. Where it is ended for another reason (a drained node, an update) the namespaces are
still there, and it goes at once.

Runs as `python -m mistral_on_l4.jobs.await_volumes` in KServe's storage-initializer image (Python 3.11 with requests).
"""

from __future__ import annotations

import signal

_ENDS = {signal.SIGTERM, signal.SIGINT}
if __name__ == "__main__":
    # The kernel drops a signal that a container's first process neither handles nor blocks; without its SIGTERM it would stay for
    # the whole grace period. So they are held back before anything that takes its time to be imported.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import requests  # noqa: E402

from mistral_on_l4.jobs.cluster_api import Call, Json, in_cluster  # noqa: E402

# The readiness probe looks for it: made when the account may read what the end depends on.
READY = Path("/tmp/ready")
_POLL_SECONDS = 1.0
_REPORT_SECONDS = 15.0


class Refused(Exception):
    """The API server does not let this account read volumes or namespaces. One sentence."""


def ask(call: Call, path: str) -> Json | None:
    """The document; {} if there is none, None if the API server does not answer now. Raises Refused."""
    try:
        status, document = call("GET", path, None)
    except (requests.RequestException, OSError):
        return None
    if status in (401, 403):
        raise Refused(f"the API server refuses {path}: {status} {document.get('message', '')}")
    if status == 404:
        return {}
    return document if status == 200 else None


def leaving(call: Call, namespaces: Sequence[str]) -> set[str] | None:
    """Which of the namespaces are gone or on their way; None if the API server does not answer now. Raises Refused."""
    departing = set()
    for namespace in namespaces:
        document = ask(call, f"/api/v1/namespaces/{namespace}")
        if document is None:
            return None
        if not document or (document.get("metadata") or {}).get("deletionTimestamp"):
            departing.add(namespace)
    return departing


def doomed(call: Call, namespaces: Sequence[str]) -> list[str] | None:
    """Names of volumes that go with their claims and are not gone; None if the API server does not answer. Raises Refused."""
    gone = leaving(call, namespaces)
    if not gone:
        return None if gone is None else []
    listed = ask(call, "/api/v1/persistentvolumes")
    if listed is None:
        return None
    names = []
    for volume in listed.get("items") or []:
        spec = volume.get("spec") or {}
        claim = spec.get("claimRef") or {}
        if spec.get("persistentVolumeReclaimPolicy") == "Delete" and claim.get("namespace") in gone:
            names.append(f"{volume['metadata']['name']} (of {claim['namespace']}/{claim.get('name')})")
    return sorted(names)


def await_volumes(
    call: Call, namespaces: Sequence[str], seconds: float, say: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> bool:
    """Whether all volumes of deleted namespaces are gone within `seconds`. Raises Refused."""
    start = time.monotonic()
    said: tuple[list[str] | None, float] = ([], float("-inf"))
    while True:
        now = time.monotonic()
        left = doomed(call, namespaces)
        if left == []:
            say("no volume of the stack is waiting to be deleted: the storage driver may go")
            return True
        if left != said[0] or now - said[1] >= _REPORT_SECONDS:
            what = "the API server's answer" if left is None else f"{len(left)} volume(s) to be deleted: {', '.join(left)}"
            say(f"{now - start:.0f} of {seconds:.0f} s: waiting for {what}")
            said = (left, now)
        if now - start >= seconds:
            say("these volumes stay, and are billed: `demo sweep` names them after the destroy")
            return False
        sleep(_POLL_SECONDS)


def main(environment: Mapping[str, str]) -> int:
    # A container that is started again finds the last one's.
    READY.unlink(missing_ok=True)
    namespaces = [name for name in environment["VOLUME_NAMESPACES"].split(",") if name]
    call = in_cluster(environment)
    if call is None:
        print("there is no API server here: this script runs in a pod with a service account", file=sys.stderr)
        return 1

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        while leaving(call, namespaces) is None or ask(call, "/api/v1/persistentvolumes?limit=1") is None:
            if signal.sigtimedwait(_ENDS, _POLL_SECONDS):
                return 0
        READY.touch()
        say(f"stays until the end of the stack; then its volumes in {', '.join(namespaces)} are awaited")
        signal.sigwait(_ENDS)
        return 0 if await_volumes(call, namespaces, float(environment["VOLUME_SECONDS"]), say) else 1
    except Refused as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(os.environ))
