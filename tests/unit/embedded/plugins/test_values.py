from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Struct

from embedded.plugins.values import UNKNOWN, Secret, decode, encode, has_unknown, mark_secrets, redactor, reveal


def test_values_survive_the_way_to_the_engine_and_back() -> None:
    values = {"a": [1, 2.5, True, "x", {"b": Secret({"c": "d"})}], "u": UNKNOWN, "s": Secret(UNKNOWN)}
    assert decode(encode(values)) == values


def test_whole_numbers_come_back_as_integers() -> None:
    found = decode(encode({"replicas": 3.0, "ratio": 0.5}))
    assert (found, type(found["replicas"])) == ({"replicas": 3, "ratio": 0.5}, int)


def test_nulls_are_left_out_because_an_absent_field_is_what_they_mean() -> None:
    struct = Struct()
    struct.update({"a": None, "b": 1})
    assert decode(struct) == {"b": 1}


def test_an_asset_is_refused() -> None:
    struct = Struct()
    struct.update({"a": {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17", "text": "x"}})
    with pytest.raises(ValueError, match="assets"):
        decode(struct)


def test_outputs_are_secret_where_the_inputs_are() -> None:
    assert mark_secrets({"a": {"b": "x", "c": "y"}, "d": [1, 2]}, {"a": {"b": Secret("x")}, "d": [1, Secret(2)]}) == {
        "a": {"b": Secret("x"), "c": "y"},
        "d": [1, Secret(2)],
    }


def test_a_list_that_the_server_has_added_to_is_secret_as_a_whole() -> None:
    assert mark_secrets([{"v": "added"}, {"v": "hidden"}], [{"v": Secret("hidden")}]) == Secret([{"v": "added"}, {"v": "hidden"}])
    assert mark_secrets(["added", "open"], ["open"]) == ["added", "open"]


def test_secrets_do_not_show_in_a_repr_or_in_a_redacted_text() -> None:
    values = {"a": Secret({"b": ["swordfish"]})}
    assert "swordfish" not in repr(values)
    assert redactor(values)('Invalid value: "swordfish"') == 'Invalid value: "[secret]"'
    assert reveal(values) == {"a": {"b": ["swordfish"]}}


def test_an_unknown_is_found_inside_a_secret() -> None:
    assert has_unknown({"a": [Secret({"b": UNKNOWN})]})
    assert not has_unknown({"a": [Secret({"b": 1})]})
