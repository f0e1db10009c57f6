"""Passwords and keys of the stack: given as Pulumi secrets, or made once and kept encrypted in the stack's own state."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi


@dataclass(frozen=True)
class StackSecretsArgs:
    """lengths: secret name -> characters (hexadecimal, so safe in URLs and connection strings); given: from the configuration."""

    lengths: Mapping[str, int]
    given: Mapping[str, pulumi.Output[str] | None] = field(default_factory=dict)


class StackSecrets(pulumi.ComponentResource):
    """Random values by name, each stable from the first `pulumi up` until it is replaced.

    A value lives in a `Stash`, the engine's own resource: encrypted in the state by the stack's secrets provider, so a
    colleague, a pull request's preview and `destroy` all see the same one, and no file holds it. `given` are values from
    `pulumi config set --secret`; they win. To roll one: `pulumi up --replace URN`; what reads it carries its `mark` and
    starts again. Not so the database's password: PostgreSQL keeps the one of its first start.
    """

    def __init__(self, name: str, args: StackSecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("mistral-on-l4:secrets:StackSecrets", name, None, opts)
        self._values: dict[str, pulumi.Output[str]] = {}
        for secret, length in args.lengths.items():
            if (configured := args.given.get(secret)) is not None:
                self._values[secret] = pulumi.Output.secret(configured)
                continue
            stash = pulumi.Stash(
                f"{name}-{secret}",
                input=pulumi.Output.secret(secrets.token_hex((length + 1) // 2)[:length]),
                # A new random input at every run must not look like a change: the stashed output is what counts.
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["input"]),
            )
            self._values[secret] = pulumi.Output.secret(stash.output)
        self.register_outputs({})

    def mark(self, *names: str, key: str) -> pulumi.Output[str]:
        """Ten hex digits that change when one of the values does, for all to see.

        key: name of a value that the stack made itself: without it nobody can try what people may have chosen.
        """

        def digest(values: list[str]) -> str:
            return hmac.new(values[0].encode(), "\n".join(values[1:]).encode(), "sha256").hexdigest()[:10]

        return pulumi.Output.unsecret(pulumi.Output.all(self[key], *(self[name] for name in names)).apply(digest))

    def __getitem__(self, name: str) -> pulumi.Output[str]:
        return self._values[name]
