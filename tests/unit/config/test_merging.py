"""`services` and `pools.groups`: maps by name over the defaults, and the lists that one more release reads."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.config.defaults import DEFAULT_POOLS, DEFAULT_SERVICES
from mistral_on_l4.config.settings import Settings, SettingsError, settings_from

NEW = {"variant": "fp8", "prefix": "new/", "pool": "l4-1gpu"}


def read(**values: Any) -> Settings:
    return settings_from({"platform": "local", **values}, "Pulumi.x.yaml")


def refused(**values: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(**values)
    return list(caught.value.problems)


def services(**values: Any) -> dict[str, dict[str, Any]]:
    return {service.name: service.model_dump(by_alias=True, exclude={"name"}) for service in read(**values).services}


def test_one_field_of_a_default_service_is_changed_and_the_others_stay() -> None:
    before, after = services(), services(services={"mistral-24b-fp8": {"maxModelLen": 4096}})
    assert after["mistral-24b-fp8"].pop("maxModelLen") == 4096
    before["mistral-24b-fp8"].pop("maxModelLen")
    assert after == before


def test_the_third_service_is_added_by_one_value() -> None:
    assert [service.name for service in read(services={"mistral-24b-w4a16": {"enabled": True}}).enabled_services] == [
        "mistral-24b-full",
        "mistral-24b-fp8",
        "mistral-24b-w4a16",
    ]


def test_new_services_come_after_the_defaults_in_the_order_of_the_file() -> None:
    order = {"zeta": {**NEW, "prefix": "z/"}, "mistral-24b-fp8": {"maxNumSeqs": 4}, "alpha": NEW}
    assert list(services(services=order)) == [*DEFAULT_SERVICES, "zeta", "alpha"]


def test_a_list_inside_an_entry_is_replaced_and_not_appended_to() -> None:
    changed = services(services={"mistral-24b-fp8": {"extraArgs": ["--seed", "1"], "maxNumSeqs": None}})["mistral-24b-fp8"]
    assert (changed["extraArgs"], changed["maxNumSeqs"]) == (("--seed", "1"), None)


def test_a_default_service_is_taken_away_by_null_or_switched_off() -> None:
    assert list(services(services={"mistral-24b-full": None})) == ["mistral-24b-fp8", "mistral-24b-w4a16"]
    off = read(services={"mistral-24b-full": {"enabled": False}})
    assert [service.name for service in off.enabled_services] == ["mistral-24b-fp8"]


def test_null_for_what_is_no_default_is_named_with_the_nearest() -> None:
    (line,) = refused(services={"mistral-24b-ful": None})
    assert line.startswith("services.mistral-24b-ful: null takes a default away, and the defaults are mistral-24b-full, ")
    assert line.endswith("did you mean 'mistral-24b-full'?")


def test_a_new_service_says_in_one_line_which_fields_it_needs() -> None:
    assert refused(services={"other": {"variant": "fp8"}}) == ["services.other: is a new entry, and needs prefix, pool"]
    assert refused(services={"mistral-24b-fp9": {"enabled": True}}) == [
        "services.mistral-24b-fp9: is a new entry, and needs variant, prefix, pool; did you mean 'mistral-24b-fp8'?"
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"services": {"mistral-24b-fp8": {"maxModelLength": 1}}},
            "services.mistral-24b-fp8.maxModelLength: unknown key; did you mean 'maxModelLen'?",
        ),
        (
            {"services": {"new": {**NEW, "kvCacheDtype": "int4"}}},
            "services.new.kvCacheDtype: input should be 'auto' or 'fp8', got 'int4'",
        ),
        ({"services": {"new": {**NEW, "name": "new"}}}, "services.new: the name is the key of the map: leave 'name' out"),
        (
            {"pools": {"groups": {"l4-1gpu": {"count": 65}}}},
            "pools.groups.l4-1gpu.count: input should be less than or equal to 64, got 65",
        ),
        (
            {"pools": {"groups": {"big": {"size": 1, "instanceType": "g6.48xlarge"}}}},
            "pools.groups.big.size: unknown key; known are ",
        ),
        ({"services": [{"name": "a", "prefix": "a/", "pool": "l4-1gpu"}]}, "services[0].variant: is missing"),
    ],
)
def test_a_mistake_is_located_as_the_file_spells_it(values: dict[str, Any], says: str) -> None:
    (line,) = refused(**values)
    assert line.startswith(says)


def test_unknown_keys_of_an_entry_are_not_told_of_its_name_which_is_no_key_there() -> None:
    (line,) = refused(pools={"groups": {"l4-1gpu": {"zones": 1}}})
    assert line == "pools.groups.l4-1gpu.zones: unknown key; known are alsoInstanceTypes, capacityType, count, instanceType"


def test_mistakes_of_shape_and_of_value_are_reported_together() -> None:
    lines = refused(services={"mistral-24b-full": 3, "mistral-24b-fp8": {"maxModelLen": 1}}, pools={"groups": {"none": None}})
    assert [line.partition(":")[0] for line in lines] == [
        "services.mistral-24b-full",
        "pools.groups.none",
        "services.mistral-24b-fp8.maxModelLen",
    ]


def test_a_pool_is_changed_added_and_taken_away_by_name() -> None:
    settings = read(
        pools={"groups": {"l4-1gpu": {"count": 2}, "l4-4gpu": None, "big": {"instanceType": "g6.48xlarge"}}},
        services={"mistral-24b-full": {"pool": "big"}},
    )
    assert [(pool.name, pool.instance_type, pool.count) for pool in settings.pools.groups] == [
        ("l4-1gpu", "g6.2xlarge", 2),
        ("big", "g6.48xlarge", 1),
    ]


def test_a_pool_that_services_still_run_on_cannot_be_taken_away() -> None:
    both = {"mistral-24b-w4a16": {"enabled": True}}
    (line,) = refused(pools={"groups": {"l4-1gpu": None}}, services=both)
    assert line == (
        "services 'mistral-24b-fp8', 'mistral-24b-w4a16' name pool 'l4-1gpu'; the pools are l4-4gpu: set "
        "services.mistral-24b-fp8.pool to one that there is, or services.mistral-24b-fp8.enabled to false"
    )
    # The third service is off, and stays in no one's way.
    assert read(pools={"groups": {"l4-1gpu": None}}, services={"mistral-24b-fp8": None})


def test_a_list_replaces_the_defaults_as_it_did_and_is_warned_of() -> None:
    settings = read(services=[{"name": "new", **NEW}], pools={"groups": [{"name": "l4-1gpu", "instanceType": "g6.4xlarge"}]})
    assert [service.name for service in settings.services] == ["new"]
    assert [pool.instance_type for pool in settings.pools.groups] == ["g6.4xlarge"]
    assert [text.partition(":")[0] for text in settings.deprecations] == ["services", "pools.groups"]
    assert all("\n" not in text and "map by name" in text for text in settings.deprecations)


def test_maps_are_read_without_a_warning() -> None:
    assert read(services={"new": NEW}, pools={"groups": {"l4-1gpu": {"count": 2}}}).deprecations == ()


def test_the_values_that_were_given_are_not_changed_by_reading_them() -> None:
    given = {
        "platform": "local",
        "pools": {"groups": {"l4-1gpu": {"count": 2}}},
        "services": {"mistral-24b-fp8": {"maxNumSeqs": 2}},
    }
    settings_from(given, "x")
    assert given["pools"] == {"groups": {"l4-1gpu": {"count": 2}}}
    assert "maxNumSeqs" in DEFAULT_SERVICES["mistral-24b-fp8"]
    assert DEFAULT_SERVICES["mistral-24b-fp8"]["maxNumSeqs"] == 16
    assert DEFAULT_POOLS["l4-1gpu"] == {"instanceType": "g6.2xlarge"}
