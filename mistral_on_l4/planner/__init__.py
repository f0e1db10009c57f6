"""Plans a stack before it is declared: does it fit, how fast will it be, what does it cost. Imports no pulumi.

`plan_stack(settings, stack=...)` answers for a whole stack, see `plan.StackPlan`.
"""

from __future__ import annotations

from mistral_on_l4.planner.plan import NotComputed, PlanError, PodResources, Remedy, ServicePlan, StackPlan
from mistral_on_l4.planner.stack import plan_stack

__all__ = ["NotComputed", "PlanError", "PodResources", "Remedy", "ServicePlan", "StackPlan", "plan_stack"]
