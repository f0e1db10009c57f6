"""Nothing secret reaches a comment: it is read by everybody and mailed to some.

The engine already hides what Pulumi knows to be secret. What it cannot know (a token that somebody typed into an argument, a
password in an error text) is caught here by its looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"

# How the engine writes special values into events (sdk/go/common/resource/properties.go).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_UNKNOWN = re.compile(
    "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7|3eeb2bf0-c639-47a8-9e75-3b44932eb421|04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    "|6a19a0b0-7e62-4c92-b797-7f8e31da9cc2|030794c1-ac77-496b-92df-f27374a8bd58|e48ece36-62e2-4504-bad9-02848725956a"
    "|dd056dcd-154b-4c76-9bd3-c8f88648b5ff"
)
_FORMS = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"\bhf_[A-Za-z0-9]{10,}"),
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,})"),
    re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),
    # Hex of the length of our own keys; digests say what they are.
    re.compile(r"(?<!sha256:)(?<![0-9a-fA-F])[0-9a-fA-F]{32,}(?![0-9a-fA-F])"),
)
_NAMES = r"(?:password|passwd|passphrase|secret[_-]?(?:access[_-]?)?key|api[_-]?key|access[_-]?key(?:[_-]?id)?|token|bearer)"
# `password=...`, `"api_key": "..."`, `--api-key ...`: the value goes, the name stays; a quoted value goes whole.
# No part of a pattern may begin anywhere inside a long word: error texts are long, and this must stay linear.
_NAMED = re.compile(
    rf"""(?P<name>{_NAMES}(?:\\?["'])?\s*[:=]\s*|--{_NAMES}\s+|--[a-z]+-{_NAMES}\s+|\bBearer\s+)"""
    r"""(?:(?P<quote>\\?["'])(?P<quoted>[^"'\\\n]{1,500})|(?!\[hidden)(?P<bare>[^\s"',;)}\]]{4,}))""",
    re.IGNORECASE,
)
_LONG = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{28,}(?![A-Za-z0-9+/=_-])")
_SECRET_PATH = re.compile(
    r"(pass(word|wd|phrase)|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credential|dsn)", re.IGNORECASE
)


def is_secret(value: Any) -> bool:
    """Whether the engine itself hides a value."""
    return value == "[secret]" or (isinstance(value, Mapping) and value.get(_SIGNATURE) == _SECRET)


def is_unknown(value: Any) -> bool:
    return isinstance(value, str) and bool(_UNKNOWN.fullmatch(value))


def names_a_secret(path: str) -> bool:
    """Whether a property's path says that its value is secret."""
    return bool(_SECRET_PATH.search(path))


def redacted(text: str) -> str:
    """The text without anything that looks like a credential."""
    for form in _FORMS:
        text = form.sub(HIDDEN, text)
    text = _NAMED.sub(_hide_named, text)
    return _LONG.sub(lambda found: HIDDEN if _random(found[0]) else found[0], text)


# Controls, directions and what has no width: they hide or turn round what a person reads.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")


def visible(text: str) -> str:
    """The text with control and bidirectional characters as escapes."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _hide_named(found: re.Match[str]) -> str:
    # In prose ("token: must ...") the next word is a word; nobody writes prose as "token=must" or in quotes.
    prose = re.fullmatch(r".*:\s+|Bearer\s+", found["name"], re.IGNORECASE | re.DOTALL)
    if found["bare"] and prose and re.fullmatch(r"[A-Z]?[a-z]+[.,:]?", found["bare"]):
        return found[0]
    return f"{found['name']}{found['quote'] or ''}{HIDDEN}"


def _random(word: str) -> bool:
    """Mixed letters and digits, as generated keys are; words joined by dashes and slashes are names."""
    parts = re.split(r"[-_/=+]", word)
    longest = max(parts, key=len)
    digits = sum(letter.isdigit() for letter in longest)
    return len(longest) >= 20 and digits >= 3 and bool(re.search(r"[a-z]", longest)) and bool(re.search(r"[A-Z]", longest))
