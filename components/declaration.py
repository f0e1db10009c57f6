"""What the policies judge a stack by, handed over as inputs of a resource: its settings and its plan.

The engine shows policies resources and nothing else of a stack: what it knows of the configuration it sends by ConfigureStack,
which pulumi_policy 1.21 drops. Nothing here is secret, and no policy believes the plan: it plans again and compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from mistral_on_l4.config.names import DECLARATION
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner import StackPlan


class Declaration(pulumi.ComponentResource):
    """A resource without anything of its own, registered after all others."""

    def __init__(self, name: str, settings: Settings, plan: StackPlan, kept: Sequence[str]) -> None:
        """kept: names of the resources that stay when the stack is destroyed, or stop its destruction (retainOnDelete, protect)."""
        inputs: dict[str, Any] = {
            "stack": pulumi.get_stack(),
            "settings": settings.model_dump(mode="json", by_alias=True),
            "plan": {
                "usdPerHour": None if plan.usd_per_hour is None else round(plan.usd_per_hour, 2),
                "services": {service.name: list(service.args) for service in plan.services},
            },
            "kept": list(kept),
        }
        super().__init__(DECLARATION, name, inputs, None)
        self.register_outputs({})


class Keeping:
    """Notes every resource of the program that is declared with `retain_on_delete` or `protect`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        pulumi.runtime.register_stack_transformation(self._note)

    def _note(self, args: pulumi.ResourceTransformationArgs) -> None:
        if args.opts.retain_on_delete or args.opts.protect:
            self.names.append(args.name)
