from __future__ import annotations

from typing import Any

import pytest

from embedded.plugins.kubernetes.reading import imported, refreshed
from embedded.plugins.values import Secret


def test_fields_that_were_not_set_are_nobodys_drift() -> None:
    inputs = {"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"replicas": 1}}
    live = {
        "metadata": {"name": "x", "uid": "u", "labels": {"a": "b", "c": "d"}},
        "spec": {"replicas": 1, "paused": False},
        "status": {},
    }
    assert refreshed(live, inputs) == inputs


def test_a_field_that_was_set_and_is_gone_or_changed_is_drift() -> None:
    inputs = {"spec": {"replicas": 1, "paused": True, "text": "a"}}
    assert refreshed({"spec": {"replicas": 3, "text": "a"}}, inputs) == {"spec": {"replicas": 3, "text": "a"}}


@pytest.mark.parametrize("empty", [{}, [], "", False, 0])
def test_an_empty_value_that_the_server_does_not_keep_is_no_drift(empty: Any) -> None:
    assert refreshed({"spec": {}}, {"spec": {"a": empty}}) == {"spec": {"a": empty}}


@pytest.mark.parametrize(
    ("given", "live"), [("1000m", "1"), (0.5, "500m"), (4, "4"), ("1024Mi", "1Gi"), ("1e3", "1k"), ("0.1", "100m")]
)
def test_a_quantity_is_the_same_in_the_servers_spelling(given: Any, live: str) -> None:
    inputs = {"resources": {"limits": {"x": given}}}
    assert refreshed({"resources": {"limits": {"x": live}}}, inputs) == inputs


def test_text_that_looks_like_a_quantity_is_compared_to_the_letter() -> None:
    assert refreshed({"data": {"version": "1.1"}}, {"data": {"version": "1.10"}}) == {"data": {"version": "1.1"}}


def test_containers_are_matched_by_name_and_injected_ones_are_not_ours() -> None:
    inputs = {"containers": [{"name": "main", "image": "a"}]}
    live = {"containers": [{"name": "injected", "image": "z"}, {"name": "main", "image": "b", "imagePullPolicy": "Always"}]}
    assert refreshed(live, inputs) == {"containers": [{"name": "main", "image": "b"}]}


def test_a_list_of_plain_values_is_one_value() -> None:
    assert refreshed({"args": ["a", "c"]}, {"args": ["a", "b"]}) == {"args": ["a", "c"]}


def test_string_data_are_looked_for_in_data() -> None:
    inputs = {"kind": "Secret", "stringData": Secret({"a": "value", "gone": "x"})}
    live = {"kind": "Secret", "data": {"a": "dmFsdWU=", "theirs": "eA=="}}
    assert refreshed(live, inputs) == {"kind": "Secret", "stringData": Secret({"a": "value"})}


def test_import_takes_what_says_something_and_hides_a_secrets_data() -> None:
    live = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "x", "uid": "u", "resourceVersion": "1", "managedFields": [], "labels": {"a": "b"}},
        "data": {"k": "djE="},
        "status": {},
    }
    assert imported(live) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "data": Secret({"k": "djE="}),
    }
