"""Which service comes in another's place where a pool has no room for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mistral_on_l4.config.settings import Settings, settings_from
from mistral_on_l4.planner import PlanError
from mistral_on_l4.planner.catalogue import load_catalogue
from mistral_on_l4.planner.succession import Running, successions
from tests.support.configuration import only_pools, only_services


def settings(*services: tuple[str, str, int], pools: Mapping[str, tuple[str, int]] | None = None) -> Settings:
    """services: name, pool, GPUs; pools: instance type and nodes by name."""
    groups = pools or {"one": ("g6.2xlarge", 1), "four": ("g6.12xlarge", 1)}
    return settings_from(
        {
            "platform": "local",
            "services": only_services(
                *(
                    {"name": name, "variant": "w4a16", "prefix": f"{name}/", "pool": pool, "tensorParallelSize": gpus}
                    for name, pool, gpus in services
                )
            ),
            "pools": {
                "groups": only_pools(
                    *({"name": name, "instanceType": kind, "count": count} for name, (kind, count) in groups.items())
                )
            },
        },
        "Pulumi.test.yaml",
    )


def running(name: str, pool: str, gpus: int, prefix: str = "") -> Running:
    return Running(name, "private-ai", pool, gpus, prefix or f"{name}/", f"urn:{name}")


def pairs(before: list[Running], after: Settings) -> dict[str, str]:
    return {name: old.name for name, old in successions(before, after, load_catalogue()).items()}


def test_a_new_service_comes_in_the_place_of_the_one_that_leaves_a_full_pool() -> None:
    assert pairs([running("old", "one", 1)], settings(("new", "one", 1))) == {"new": "old"}


@pytest.mark.parametrize(
    "after",
    [
        settings(("old", "one", 1)),
        settings(("new", "four", 4)),
        settings(("new", "one", 1), pools={"one": ("g6.2xlarge", 2)}),
        settings(("new", "one", 1), pools={"one": ("g6.2xlarge", 0)}),
    ],
    ids=["it stays", "another pool", "room for both", "parked"],
)
def test_nothing_goes_first_where_nothing_is_in_the_way(after: Settings) -> None:
    assert pairs([running("old", "one", 1)], after) == {}


def test_a_service_that_is_only_called_otherwise_takes_its_own_place() -> None:
    before = [running("a", "four", 2), running("b", "four", 2, prefix="renamed/")]
    assert pairs(before, settings(("other", "four", 2), ("renamed", "four", 2))) == {"renamed": "b", "other": "a"}


def test_one_that_grows_in_place_is_an_update_and_what_leaves_beside_it_cannot_wait() -> None:
    before = [running("kept", "four", 2), running("gone", "four", 2)]
    with pytest.raises(PlanError, match="pool four has no room for kept while gone is still there: take gone away in an update"):
        pairs(before, settings(("kept", "four", 4)))


def test_what_was_added_by_mistake_goes_with_the_node_that_it_was_to_have() -> None:
    before = [running("kept", "one", 1), running("mistake", "one", 1)]
    assert pairs(before, settings(("kept", "one", 1), pools={"one": ("g6.2xlarge", 1)})) == {}


def test_two_that_make_room_for_one_are_refused_in_one_line() -> None:
    before = [running("a", "four", 2), running("b", "four", 2)]
    with pytest.raises(PlanError, match="no room for big while b is still there"):
        pairs(before, settings(("big", "four", 4)))


def test_services_that_change_pools_among_themselves_need_no_order() -> None:
    # Both old pods go before either new one is awaited.
    before = [running("a", "four", 1), running("b", "one", 1)]
    assert pairs(before, settings(("a", "one", 1), ("b", "four", 1))) == {}


def test_a_service_on_a_pool_that_is_gone_holds_nobody_up() -> None:
    found: Any = successions([running("x", "a-pool-that-is-gone", 1)], settings(("new", "one", 1)), load_catalogue())
    assert found == {}
