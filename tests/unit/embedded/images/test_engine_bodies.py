"""Bodies that vLLM refuses before a model sees them, in the words that vLLM 0.32.0 was heard to say."""

from __future__ import annotations

import json

import pytest

from embedded.images.engine.bodies import CHAT, refusal

JSON = {"content-type": "application/json"}
MESSAGES = b'{"model":"small","messages":[{"role":"user","content":"x"}]}'

HEARD = [
    (b"{not json", "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.1', 'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting property name enclosed in double quotes'}}", "Bad Request", "body.1"),
    (b"", "1 validation error:\n  {'type': 'missing', 'loc': 'body', 'msg': 'Field required', 'input': 'None'}", "Bad Request", "body"),
    (b'{"model":"small"}', "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': '<dict of 1 items>'}", "Bad Request", "body.messages"),
    (b'{"model":"small","messages":"hello"}', "1 validation error:\n  {'type': 'list_type', 'loc': 'body.messages', 'msg': 'Input should be a valid list', 'input': 'hello'}", "Bad Request", "body.messages"),
    (b"[1]", "1 validation error:\n  {'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid dictionary or object to extract fields from', 'input': '<list of 1 items>'}", "Bad Request", "body"),
    (MESSAGES[:-1] + b',"temperature":-1}', "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)", "BadRequestError", "temperature"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "message", "kind", "where"), HEARD)
def test_a_body_is_refused_in_vllms_words(body: bytes, message: str, kind: str, where: str) -> None:
    found = refusal(CHAT, JSON, body)
    assert found
    assert json.loads(found[1]) == {"error": {"message": message, "type": kind, "param": where, "code": 400}}


def test_a_body_that_is_not_called_json_is_refused_whatever_it_holds() -> None:
    found = refusal(CHAT, {"content-type": "text/plain"}, MESSAGES)
    assert found
    assert "Unsupported Media Type: Only 'application/json' is allowed" in json.loads(found[1])["error"]["message"]


def test_what_vllm_would_look_at_goes_on_to_the_simulator() -> None:
    assert refusal(CHAT, {"content-type": "application/json; charset=utf-8"}, MESSAGES) is None
    assert refusal("/v1/completions", JSON, b'{"model":"small","prompt":"x"}') is None
    assert refusal("/tokenize", {}, b"") is None
