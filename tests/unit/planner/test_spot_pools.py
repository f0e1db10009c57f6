"""Pools on spot: several instance types, and what an interruption does."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mistral_on_l4.aws.quotas import needed
from mistral_on_l4.config.settings import Settings, SettingsError, settings_from
from mistral_on_l4.planner import PlanError, plan_stack
from mistral_on_l4.planner.catalogue import load_catalogue


def spot(*types: str, **more: Any) -> Settings:
    group = {"capacityType": "SPOT", "alsoInstanceTypes": list(types), **more}
    return settings_from({"platform": "eks", "pools": {"groups": {"l4-1gpu": group}}}, "test")


def test_a_plan_says_what_an_interruption_does_and_how_long_it_lasts() -> None:
    [note] = [note for note in plan_stack(spot("g6.4xlarge")).notes if "two minutes' notice" in note]
    assert re.search(r"its service is away until another node has image and weights \(about \d+ to \d+ min\)", note)


def test_a_pool_of_one_spot_type_is_told_which_others_go_with_it() -> None:
    [note] = [note for note in plan_stack(spot()).notes if "alsoInstanceTypes" in note]
    assert note.endswith("g6.4xlarge, g6.8xlarge, g6.16xlarge")
    assert not [note for note in plan_stack(spot("g6.4xlarge")).notes if "alsoInstanceTypes" in note]


@pytest.mark.parametrize("wrong", ["g6e.2xlarge", "g6.xlarge", "g6.12xlarge"])
def test_a_type_on_which_the_pods_would_not_fit_is_refused_with_those_on_which_they_do(wrong: str) -> None:
    with pytest.raises(PlanError, match=rf"alsoInstanceTypes {wrong} has other GPUs.*with it go g6\.4xlarge, g6\.8xlarge"):
        plan_stack(spot(wrong))


def test_the_quota_has_to_do_for_the_largest_of_the_types() -> None:
    assert needed(spot("g6.8xlarge"), load_catalogue())["SPOT"] == 32


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ({"capacityType": "ON_DEMAND"}, "is for capacityType SPOT"),
        ({"instanceType": "g6.4xlarge"}, "names a type twice: g6.4xlarge, g6.4xlarge"),
    ],
)
def test_further_types_are_for_spot_and_each_once(group: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        spot("g6.4xlarge", **group)
