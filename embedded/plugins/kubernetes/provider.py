"""The life of one resource: check, diff, create, read, update, delete. Plain Python; the protocol around it is in server.py."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embedded.plugins.kubernetes import objects, reading
from embedded.plugins.kubernetes.configuration import Configuration, client_for, require_local
from embedded.plugins.kubernetes.differences import Difference, compare, delete_before_replace
from embedded.plugins.kubernetes.field_managers import adopt_fields, explain_conflict
from embedded.plugins.kubernetes.objects import MANAGER, Kind
from embedded.plugins.kubernetes.readiness import rule_for
from embedded.plugins.kubernetes.waiting import NotReady, Reporter, Waiter
from embedded.plugins.kubernetes.watching import Cluster
from embedded.plugins.marks import MARK, MARK_VALUE
from embedded.plugins.values import Secret, has_unknown, redactor, reveal
from mistral_on_l4.cluster.client import ApiError, KubeClient, Object, UnknownKind, Unreachable
from mistral_on_l4.cluster.live import condition

Values = dict[str, Any]


class Refused(Exception):
    """The operation did not happen. One line for people."""


@dataclass(frozen=True)
class InitFailed(Exception):
    """The object exists, so the state must hold it, but it did not become ready."""

    identifier: str
    outputs: Values
    inputs: Values
    reason: str


@dataclass(frozen=True)
class Differences:
    """A resource's changed properties, and whether its old object has to go before a new one comes."""

    changes: list[Difference]
    delete_first: bool


class Provider:
    """One configured provider: one cluster. Safe to call from many threads at once."""

    def __init__(self) -> None:
        self.configuration = Configuration()
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._cluster: Cluster | None = None

    def configure(self, configuration: Configuration) -> None:
        """Raises BadConfiguration. Does not call the cluster: it may not be up yet, and a preview may not need it."""
        if configuration.known:
            require_local(configuration)
        self.configuration = configuration

    @property
    def cluster(self) -> Cluster:
        """Made at the first use: most previews change nothing and never call it. Raises Refused while it is unknown."""
        with self._lock:
            if self._cluster is None:
                if not self.configuration.known:
                    raise Refused("the provider's kubeconfig is not known yet")
                self._cluster = Cluster(client_for(self.configuration))
            return self._cluster

    @property
    def client(self) -> KubeClient:
        return self.cluster.client

    @property
    def _waiter(self) -> Waiter:
        return Waiter(self.cluster, self.cancelled)

    # -- check and diff ------------------------------------------------------------------------------------------------

    def check(self, kind: Kind, name: str, old: Values, new: Values, seed: bytes, proposed: str | None) -> Values:
        """Inputs as they will be sent: with a name and a namespace."""
        inputs = {"apiVersion": kind.api_version, "kind": kind.kind, **new}
        if kind.patch:
            meta = reveal(inputs.get("metadata")) or {}
            if not meta.get("name"):
                raise Refused("a Patch resource needs metadata.name: the name of the object that it patches")
        else:
            inputs = objects.with_managed_by(objects.with_name(inputs, old, name, seed, proposed), old)
        inputs = self._with_namespace(inputs)
        if not has_unknown(inputs.get("metadata")):
            rule_for(inputs)
            objects.wait_seconds(inputs, 0.0)
        return inputs

    def _with_namespace(self, inputs: Values) -> Values:
        meta = inputs.get("metadata")
        if not isinstance(meta, dict) or "namespace" in meta or not self.configuration.known:
            return inputs
        try:
            namespaced = self.client.resource_type(str(inputs["apiVersion"]), str(inputs["kind"])).namespaced
        except ApiError:
            # Its definition may be part of the same program, or the cluster may be down: then nothing is assumed.
            return inputs
        if not namespaced:
            return inputs
        return {**inputs, "metadata": {**meta, "namespace": self.configuration.namespace or "default"}}

    def diff(self, kind: Kind, state: Values, old: Values, new: Values) -> Differences:
        _refuse_foreign(state)
        changes = compare(old, new, self.configuration.mutability)
        if kind.kind == "Job" and objects.is_true(new, objects.REPLACE_UNREADY) and self._is_unready(state):
            changes = [*changes, Difference(("metadata", "annotations", objects.REPLACE_UNREADY), "UPDATE", True)]
        return Differences(changes, not kind.patch and delete_before_replace(old, new))

    def _is_unready(self, state: Values) -> bool:
        """Whether a Job is there and not complete: it failed, or the wait for it was interrupted. An unreadable one is left."""
        # A Job that was complete once is so for good.
        if condition(state, "Complete") == "True" or not self.configuration.known:
            return False
        meta = reveal(state.get("metadata")) or {}
        try:
            live = self.client.get(str(state["apiVersion"]), "Job", str(meta["name"]), meta.get("namespace"))
        except (ApiError, KeyError, Refused):
            return False
        return condition(live, "Complete") != "True"

    # -- create --------------------------------------------------------------------------------------------------------

    def create(self, kind: Kind, inputs: Values, timeout: float, preview: bool, reporter: Reporter) -> tuple[str, Values]:
        """(id, outputs). Raises Refused, ApiError, or InitFailed if it exists and did not become ready."""
        manager = _manager(inputs)
        if preview:
            return "", objects.preview_outputs(self._foreseen(kind, inputs, manager), inputs, manager)
        with _redacted(inputs):
            live = self._patch(inputs, manager) if kind.patch else self._post(objects.body(inputs), manager)
        return objects.object_id(live), self._settled(live, inputs, manager, timeout, reporter)

    def _post(self, body: Object, manager: str) -> Object:
        try:
            return self.client.create(body, params={"fieldManager": manager})
        except UnknownKind as error:
            raise Refused(f"{error}. Verify that any required CRDs have been created.") from None
        except ApiError as error:
            if error.reason == "AlreadyExists":
                raise Refused(
                    f"resource {objects.object_id(body)} was not successfully created by the Kubernetes API server: "
                    f"{error.message}; import it (pulumi import), or delete it first"
                ) from None
            raise

    def _patch(self, inputs: Values, manager: str) -> Object:
        body = objects.body(inputs)
        meta = body["metadata"]
        # Apply would create what is missing; a Patch resource is about an object that somebody else has made.
        self.client.get(body["apiVersion"], body["kind"], meta["name"], meta.get("namespace"))
        return self._apply(body, inputs, manager)

    def _apply(self, body: Object, inputs: Values, manager: str, dry_run: bool = False) -> Object:
        force = self.configuration.patch_force or objects.is_true(inputs, objects.FORCE)
        try:
            return self.client.apply(body, manager, force=force, dry_run=dry_run)
        except ApiError as error:
            if error.status == 409:
                raise Refused(explain_conflict(error)) from None
            raise

    def _foreseen(self, kind: Kind, inputs: Values, manager: str) -> Mapping[str, Any]:
        """What a dry run says the object will be; the inputs where none is possible."""
        if kind.patch or not self.configuration.known or has_unknown(inputs):
            return inputs
        with _redacted(inputs):
            try:
                return self.client.create(objects.body(inputs), params={"fieldManager": manager, "dryRun": "All"})
            except Unreachable:
                return inputs
            except ApiError as error:
                # Its namespace or kind comes with the same update; or may only be read here; or it exists, which the update
                # will say (pulumi-kubernetes keeps it from the preview too).
                if error.status in (403, 404) or error.reason == "AlreadyExists":
                    return inputs
                raise

    def _settled(self, live: Object, inputs: Values, manager: str, timeout: float, reporter: Reporter) -> Values:
        """The outputs of an object once it is ready. Raises InitFailed."""
        try:
            seconds = objects.wait_seconds(inputs, timeout)
            live = self._waiter.until_ready(live, inputs, seconds, reporter)
        except NotReady as failure:
            kept = objects.outputs(failure.live, inputs, manager)
            reason = redactor(inputs, kept)(failure.reason)
            raise InitFailed(objects.object_id(failure.live), kept, inputs, reason) from None
        return objects.outputs(live, inputs, manager)

    # -- read ----------------------------------------------------------------------------------------------------------

    def read(self, kind: Kind, identifier: str, state: Values, inputs: Values) -> tuple[str, Values, Values] | None:
        """(id, outputs, inputs) of what is there; None if nothing is. For get, import and refresh alike."""
        _refuse_foreign(state)
        namespace, name = objects.split_id(identifier)
        try:
            live = self.client.get(kind.api_version, kind.kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        # What lives in no namespace has none in its id, and what lives in one always has: "name" alone means "default".
        identifier = objects.object_id(live)
        declared = inputs.get("apiVersion") or inputs.get("metadata")
        found = reading.refreshed(live, inputs) if declared else reading.imported(live)
        return identifier, objects.outputs(live, found, str(state.get(MANAGER) or _manager(inputs))), found

    # -- update --------------------------------------------------------------------------------------------------------

    def update(
        self,
        identifier: str,
        state: Values,
        inputs: Values,
        timeout: float,
        preview: bool,
        reporter: Reporter,
    ) -> Values:
        """The outputs afterwards. Raises as create does."""
        _refuse_foreign(state)
        manager = objects.annotations_of(inputs).get(objects.FIELD_MANAGER) or str(state.get(MANAGER) or _manager(inputs))
        body = objects.body(inputs)
        if not has_unknown(inputs):
            # Of generateName the server has made a name.
            body["metadata"] = {**(body.get("metadata") or {}), "name": objects.split_id(identifier)[1]}
        if preview:
            return objects.outputs(self._foreseen_update(body, inputs, manager, state), inputs, manager)
        with _redacted(inputs):
            adopt_fields(self.client, body, manager)
            live = self._apply(body, inputs, manager)
        return self._settled(live, inputs, manager, timeout, reporter)

    def _foreseen_update(self, body: Object, inputs: Values, manager: str, state: Values) -> Mapping[str, Any]:
        unsure = {**inputs, **({"status": state["status"]} if "status" in state else {})}
        if not self.configuration.known or has_unknown(inputs):
            return unsure
        with _redacted(inputs):
            try:
                return self.client.apply(body, manager, force=True, dry_run=True)
            except ApiError as error:
                if isinstance(error, Unreachable) or error.status in (403, 404):
                    return unsure
                raise

    # -- delete --------------------------------------------------------------------------------------------------------

    def delete(self, kind: Kind, identifier: str, state: Values, inputs: Values, timeout: float, reporter: Reporter) -> None:
        """Returns when the object is gone; at once where it says skipAwait. What is gone already is a success."""
        _refuse_foreign(state)
        namespace, name = objects.split_id(identifier)
        try:
            live = self.client.get(kind.api_version, kind.kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return
            raise
        if kind.patch:
            self._relinquish(live, str(state.get(MANAGER) or _manager(inputs)))
            return
        said = inputs or state
        propagation = objects.annotations_of(said).get(objects.DELETION_PROPAGATION, "foreground").capitalize()
        if propagation not in ("Foreground", "Background", "Orphan"):
            raise Refused(f"annotation {objects.DELETION_PROPAGATION} must be foreground, background or orphan")
        try:
            self.client.delete(kind.api_version, kind.kind, name, namespace, propagation)
        except ApiError as error:
            if error.status == 404:
                return
            raise
        if objects.is_true(said, objects.SKIP_AWAIT):
            return
        try:
            self._waiter.until_gone(live, objects.wait_seconds(said, timeout), reporter)
        except NotReady as failure:
            raise Refused(failure.reason) from None

    def _relinquish(self, live: Object, manager: str) -> None:
        """Gives up the fields that a Patch resource owns: they go, unless somebody else owns them too."""
        meta = {key: value for key, value in live["metadata"].items() if key in ("name", "namespace")}
        body = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": meta}
        try:
            self.client.apply(body, manager)
        except ApiError as error:
            if error.status == 422:
                raise Refused(
                    f"the patch cannot be taken back, because the object needs its fields ({error.message}): "
                    "set retain_on_delete on the Patch resource"
                ) from None
            raise


def _manager(inputs: Mapping[str, Any]) -> str:
    """The field manager of a new resource: its own, so that two resources that set one field are told of it."""
    return objects.annotations_of(inputs).get(objects.FIELD_MANAGER) or f"pulumi-kubernetes-{secrets.token_hex(4)}"


def _refuse_foreign(state: Mapping[str, Any]) -> None:
    """A state written by the official plugin is its own: this stand-in would not do everything that it promised."""
    if state.get("apiVersion") and state.get("kind") and MARK not in state and (MANAGER in state or "__initialApiVersion" in state):
        raise Refused(
            "this stack was brought up with the official pulumi-kubernetes plugin, and the stand-in does not go on with it: "
            "use the official plugin, or destroy the stack first"
        )
    if MARK in state and state[MARK] != MARK_VALUE:
        raise Refused(f"this stack was brought up with another stand-in ({state[MARK]!r})")


class _redacted:
    """Keeps secrets of the inputs out of what the API server says about them: it quotes values that it refuses."""

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        hidden = dict(inputs)
        if hidden.get("kind") == "Secret":
            hidden |= {key: Secret(reveal(hidden[key])) for key in ("data", "stringData") if key in hidden}
        self._redact: Callable[[str], str] = redactor(
            hidden, {"sent": Secret(objects.body(inputs).get("data"))} if "stringData" in hidden else {}
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ApiError):
            error.message = self._redact(error.message)
            error.args = (error.message,)
            error.body = {}
