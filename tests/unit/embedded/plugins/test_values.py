from __future__ import annotations

import pytest
from google.protobuf.struct_pb2 import Struct

from embedded.plugins.values import UNKNOWN, Secret, decode, encode, reveal


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


def test_secrets_do_not_show_in_a_repr() -> None:
    values = {"a": Secret({"b": ["swordfish"]})}
    assert "swordfish" not in repr(values)
    assert reveal(values) == {"a": {"b": ["swordfish"]}}
