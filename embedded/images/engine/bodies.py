"""What vLLM says of a request's body before any model sees it, where the simulator says something else or takes it.

Asked of vLLM 0.32.0 (`make contract`); the words are FastAPI's, and vLLM's own for the temperature.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CHAT = "/v1/chat/completions"
CHECKED = (CHAT, "/v1/completions")
_STATUS = "400 Bad Request"


def refusal(path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, bytes] | None:
    """(status, JSON) of what vLLM refuses a POST for; None for what it would look at. headers: names in lower case."""
    if path not in CHECKED:
        return None
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _invalid("Unsupported Media Type: Only 'application/json' is allowed", None)
    if not body:
        return _missing("body", "None")
    try:
        given = json.loads(body)
    except json.JSONDecodeError as error:
        where, context = f"body.{error.pos}", {"error": error.msg}
        detail = {"type": "json_invalid", "loc": where, "msg": "JSON decode error", "input": "<dict of 0 items>", "ctx": context}
        return _invalid(str(detail), where)
    except ValueError:
        return _error("BadRequestError", "There was an error parsing the body", None)
    if not isinstance(given, dict):
        sentence = "Input should be a valid dictionary or object to extract fields from"
        return _invalid(str({"type": "model_attributes_type", "loc": "body", "msg": sentence, "input": _shown(given)}), "body")
    if path == CHAT and "messages" not in given:
        return _missing("body.messages", _shown(given))
    if path == CHAT and not isinstance(given["messages"], list):
        where = "body.messages"
        detail = {"type": "list_type", "loc": where, "msg": "Input should be a valid list", "input": _shown(given["messages"])}
        return _invalid(str(detail), where)
    temperature = given.get("temperature")
    if isinstance(temperature, (int, float)) and temperature < 0:
        value = float(temperature)
        sentence = f"temperature must be non-negative, got {value}. (parameter=temperature, value={value})"
        return _error("BadRequestError", sentence, "temperature")
    return None


def _missing(where: str, shown: str) -> tuple[str, bytes]:
    return _invalid(str({"type": "missing", "loc": where, "msg": "Field required", "input": shown}), where)


def _invalid(detail: str, where: str | None) -> tuple[str, bytes]:
    return _error("Bad Request", f"1 validation error:\n  {detail}", where)


def _error(kind: str, message: str, where: str | None) -> tuple[str, bytes]:
    error = {"message": message, "type": kind, "param": where, "code": 400}
    return _STATUS, json.dumps({"error": error}, separators=(",", ":"), ensure_ascii=False).encode()


def _shown(value: Any) -> str:
    """vLLM names what is long by its kind."""
    return f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, (dict, list)) else str(value)
