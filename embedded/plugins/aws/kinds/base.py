"""What the stand-in has to know of a resource type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from embedded.plugins.aws.bridge import Bridge
from embedded.plugins.aws.ledger import Account, AwsError, Entry
from embedded.plugins.aws.service_model import Call
from embedded.plugins.values import UNKNOWN

Values = dict[str, Any]


class Kind:
    """One resource type of pulumi-aws.

    token: its type; kind: the account's word for it; known: inputs that are understood, all others are refused; computed: outputs
    that nobody knows before the create.
    """

    token: ClassVar[str]
    kind: ClassVar[str]
    known: ClassVar[frozenset[str]]
    computed: ClassVar[tuple[str, ...]] = ()
    # What a failed create leaves: nothing, or a resource in the state of failure, as AWS does with what takes minutes.
    half_made_on_failure: ClassVar[bool] = False
    # (code, message) of a create that a rehearsal makes fail.
    fault: ClassVar[tuple[str, str]] = ("InternalFailure", "an internal error has occurred")

    def named(self, inputs: Values) -> Values:
        """Inputs with the name that the official provider would make up, if it would."""
        return inputs

    def calls(self, inputs: Values) -> Iterator[Call]:
        """The API calls that a create is, for checking against AWS's model; values may be UNKNOWN."""
        raise NotImplementedError

    def enter(self, account: Account, inputs: Values) -> Entry:
        """Starts the create. Raises AwsError for a reference to what is not there, or a name in use."""
        raise NotImplementedError

    def settle(self, account: Account, entry: Entry, inputs: Values, bridge: Bridge) -> Values:
        """Ends the create: outputs beside the inputs. Raises AwsError if AWS would give up on it."""
        raise NotImplementedError

    def outside(self, entry: Entry, inputs: Values, bridge: Bridge) -> None:
        """What happens outside the account once the resource is there, such as nodes joining. May take time, holds no lock."""

    def update(self, account: Account, entry: Entry, inputs: Values) -> Values:  # noqa: ARG002
        """Outputs that an update changes."""
        return {}

    def blockers(self, account: Account, entry: Entry) -> Sequence[Entry]:  # noqa: ARG002
        """What keeps AWS from deleting it."""
        return ()

    def refusal(self, entry: Entry, blockers: Sequence[Entry]) -> AwsError:
        """AWS's words for a delete with something still in it."""
        what = ", ".join(f"{found.kind} {found.id}{f' ({found.name})' if found.name else ''}" for found in blockers)
        return AwsError(
            f"EC2: Delete {self.kind}", "DependencyViolation", f"{entry.id} has dependencies and cannot be deleted: {what}"
        )

    def leave(self, entry: Entry, bridge: Bridge) -> None:
        """What goes outside the account before the resource does, such as nodes."""

    def gone(self, account: Account, entry: Entry) -> None:
        """Removes it, with what AWS made for it."""
        account.remove(entry.id)


def require(account: Account, operation: str, code: str, kind: str, key: Any) -> Entry:
    """The resource that a create refers to. Raises AwsError if there is none, or if it is on its way out."""
    found = account.find(kind, str(key))
    if found is None or found.status in ("DELETING", "FAILED"):
        state = "does not exist" if found is None else f"is {found.status}"
        raise AwsError(operation, code, f"the {kind} {key!r} {state}")
    return found


def ec2_tags(resource: str, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """TagSpecifications of a create call."""
    if inputs.get("tags") is UNKNOWN or not inputs.get("tags"):
        return []
    return [{"ResourceType": resource, "Tags": [{"Key": key, "Value": text} for key, text in inputs["tags"].items()]}]


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was not given."""
    return {key: value for key, value in values.items() if value is not None}


def renamed(value: Any, capital: bool = True) -> Any:
    """Keys of nested structures as EC2 spells them: httpTokens -> HttpTokens."""
    if isinstance(value, Mapping):
        return {key[0].upper() + key[1:] if capital else key: renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item) for item in value]
    return value
