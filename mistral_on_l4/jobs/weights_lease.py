"""One writer per prefix: a Lease in the job's namespace, as Kubernetes' own leader election holds them.

Conditional puts would do it without Kubernetes, but are not atomic on every S3 server. Clocks of nodes are not compared: a
lease is free when its holder's last renewal has not changed for as long as it may last, by our own clock.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import requests

from mistral_on_l4.jobs.cluster_api import TIMEOUT, Call, Json, in_cluster
from mistral_on_l4.jobs.weights_limits import Failure, Interrupted, Stop

DURATION_SECONDS = 15
_RENEW_SECONDS = 4.0
_POLL_SECONDS = 2.0


def lease_name(bucket: str, prefix: str) -> str:
    """A DNS name for a prefix of a bucket; two prefixes never share one."""
    plain = re.sub(r"[^a-z0-9]+", "-", prefix.lower()).strip("-")[:40].strip("-")
    return f"weights-{plain}-{hashlib.sha256(f'{bucket}/{prefix}'.encode()).hexdigest()[:8]}"


class Lease:
    """Held between `acquire` and `release`, and renewed meanwhile. lost is called, once, when that no longer works."""

    def __init__(self, call: Call, namespace: str, name: str, holder: str, stop: Stop, lost: Callable[[Failure], None]) -> None:
        self._call = call
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._what = f"Lease {namespace}/{name}"
        self._name = name
        # A restarted container has its pod's name and is another writer.
        self._holder = f"{holder}_{uuid.uuid4().hex[:8]}"
        self._stop = stop
        self._lost = lost
        self._done = threading.Event()
        self._threads = [threading.Thread(target=work, name="lease", daemon=True) for work in (self._renew, self._watch)]
        self._owned = False
        # When the renewal that holds was asked for: others count from when they see it, which is later.
        self._renewed = 0.0

    def acquire(self, seconds: float, say: Callable[[str], None]) -> bool:
        """Waits until nobody else holds it, `seconds` at most. True if there was a wait. Raises Failure, Stopped."""
        end = time.monotonic() + seconds
        seen: tuple[str, str] | None = None
        since, waited = 0.0, False
        while True:
            status, answer = self._ask("GET", f"/{self._name}", None)
            if status == 404:
                if self._take("POST", "", None):
                    return waited
            elif status == 200:
                spec = answer.get("spec") or {}
                holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
                if (holder, renewed) != seen:
                    seen, since = (holder, renewed), time.monotonic()
                # A duration after we first saw this renewal it was not renewed: its holder is dead.
                if (not holder or time.monotonic() - since > (spec.get("leaseDurationSeconds") or DURATION_SECONDS)) and self._take(
                    "PUT", f"/{self._name}", answer
                ):
                    return waited
                if holder and not waited:
                    say(f"waiting: {holder.rpartition('_')[0] or holder} writes this checkpoint ({self._what})")
                    waited = True
            elif status and status not in (409, 429) and status < 500:
                raise Failure(f"cannot read {self._what}: {status} {answer.get('message', '')}")
            if time.monotonic() > end:
                raise Failure(f"{self._what} was not free within {seconds:.0f} s")
            self._stop.sleep(_POLL_SECONDS)

    def _take(self, method: str, path: str, existing: Json | None) -> bool:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        before = (existing or {}).get("spec") or {}
        metadata = {"name": self._name, "labels": {"app.kubernetes.io/component": "seed-weights"}}
        if existing:
            metadata = existing["metadata"]
        spec = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": DURATION_SECONDS,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": (before.get("leaseTransitions") or 0) + (1 if existing else 0),
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        asked = time.monotonic()
        status, answer = self._ask(method, path, body)
        if status in (200, 201):
            self._held, self._renewed, self._owned = answer, asked, True
            for thread in self._threads:
                thread.start()
            return True
        if status in (0, 404, 409, 429) or status >= 500:
            return False  # somebody was faster, or the server was away
        raise Failure(f"cannot take {self._what}: {status} {answer.get('message', '')}")

    def _renew(self) -> None:
        while not self._done.wait(_RENEW_SECONDS):
            body = {**self._held, "spec": {**self._held["spec"], "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}}
            asked = time.monotonic()
            status, answer = self._ask("PUT", f"/{self._name}", body)
            if status == 200:
                self._held, self._renewed = answer, asked
            elif status in (404, 409) and not self._mine():
                self._lose(f"{self._what} was taken away")

    def _watch(self) -> None:
        """Ends the writing before anybody else may begin, also while a renewal waits for its answer."""
        last = DURATION_SECONDS - _RENEW_SECONDS
        while not self._done.wait(max(self._renewed + last - time.monotonic(), 0.0)):
            if time.monotonic() - self._renewed >= last:
                self._lose(f"{self._what} could not be renewed for {last:.0f} s: the Kubernetes API does not answer")

    def _lose(self, why: str) -> None:
        if not self._done.is_set():
            self._owned = False
            self._done.set()
            self._lost(Interrupted(f"{why}; a new run goes on where this one was"))

    def _mine(self) -> bool:
        """Whether we still hold it, somebody else having changed the object; then its newest version is renewed next."""
        status, answer = self._ask("GET", f"/{self._name}", None)
        if status == 200 and (answer.get("spec") or {}).get("holderIdentity") == self._holder:
            self._held = answer
            return True
        return status not in (200, 404)

    def release(self) -> None:
        """Lets the next one in at once; never raises: a lease that cannot be deleted runs out."""
        self._done.set()
        if not self._owned:
            return
        for thread in self._threads:
            thread.join(timeout=sum(TIMEOUT))
        meta = self._held["metadata"]
        # Only the object that we held: by now it may be somebody else's.
        options = {"preconditions": {"uid": meta.get("uid"), "resourceVersion": meta.get("resourceVersion")}}
        self._ask("DELETE", f"/{self._name}", options)

    def _ask(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        """(0, {}) when the API server does not answer."""
        try:
            return self._call(method, self._collection + path, body)
        except (requests.RequestException, OSError):
            return 0, {}


def lease_for(
    environment: Mapping[str, str], bucket: str, prefix: str, stop: Stop, lost: Callable[[Failure], None]
) -> Lease | None:
    """The lease of a prefix for this pod; None outside a cluster, where nothing else could hold it."""
    call, namespace = in_cluster(environment), environment.get("POD_NAMESPACE")
    if call is None or not namespace:
        return None
    holder = environment.get("POD_NAME") or os.uname().nodename
    return Lease(call, namespace, lease_name(bucket, prefix), holder, stop, lost)
