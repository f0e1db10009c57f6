"""Server-side apply's ownership of fields: how ours is kept, and how a conflict is told."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.cluster.client import JSON_PATCH, ApiError, KubeClient, Object


def adopt_fields(client: KubeClient, body: Object, manager: str) -> None:
    """Turns what `manager` owns by the create into what it owns by apply, so that a later apply can also remove fields.

    An object is created by POST, because only that refuses an existing one; the server then records the manager's fields
    under the operation Update, and would see them as somebody else's at the first apply.
    """
    meta = body["metadata"]
    try:
        live = client.get(body["apiVersion"], body["kind"], meta["name"], meta.get("namespace"))
    except ApiError as error:
        if error.status == 404:
            return
        raise
    entries = live["metadata"].get("managedFields") or []
    ours = [e for e in entries if e["manager"] == manager and e["operation"] == "Update" and not e.get("subresource")]
    if not ours:
        return
    if any(e["manager"] == manager and e["operation"] == "Apply" for e in entries):
        kept = [e for e in entries if e not in ours]
    else:
        kept = [{**e, "operation": "Apply"} if e in ours else e for e in entries]
    patch: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": live["metadata"]["resourceVersion"]},
        {"op": "replace", "path": "/metadata/managedFields", "value": kept},
    ]
    client.patch(body["apiVersion"], body["kind"], meta["name"], meta.get("namespace"), patch, JSON_PATCH)


def explain_conflict(error: ApiError) -> str:
    """Which fields somebody else owns, and what would settle it."""
    fields = ", ".join(f"{field} ({message})" for field, message in error.causes)
    return (
        f"server-side apply conflict: {fields or error.message}. Leave these fields out of the program, or take them over with the "
        'annotation pulumi.com/patchForce: "true"'
    )
