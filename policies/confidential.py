"""No secret in clear: not in environment, arguments, ConfigMaps or any other object that is not a Secret.

Policies see plain values also of what Pulumi keeps secret, so this looks at where a value stands, not at whether Pulumi hides it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pulumi_policy import Severity

from policies.pods import pod_of
from policies.reading import at, items, mapping, texts
from policies.rule import Resource, resource_rule

# A name that says its value is secret. `..._FILE`, `..._PATH`, `..._NAME` and the like name where it is kept.
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase)?|secret|token|api[-_]?key|access[-_]?key([-_]?id)?|secret[-_]?key|private[-_]?key|credentials?|dsn|auth)$",
    re.IGNORECASE,
)
# Words that end like a secret's name and are none.
_NOT_SECRET = re.compile(
    r"(max|min|num|per|stop|eos|bos|pad)[-_]?tokens?$|tokenizer|(existing|pull|image|tls|config|admin)[-_]?secret$", re.IGNORECASE
)
_FLAG = re.compile(r"^--?([a-z0-9][a-z0-9-]*)(?:=(.*))?$", re.IGNORECASE | re.DOTALL)
_KNOWN_FORMS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@$\"'{}%]+:[^/\s:@$\"'{}%]+@", re.IGNORECASE),
}
# What looks random and is public: digests, fingerprints, ids, revisions, URNs.
_PUBLIC = re.compile(
    r"sha(1|256|512)[:-][0-9a-fA-F]+|(\b(?i:revision|commit)\s|@)[0-9a-f]{40}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|arn:aws[a-z-]*:\S+"
)
_PUBLIC_NAME = re.compile(r"(sha(1|256)?|digest|revision|commit|checksum|fingerprint|etag|uid|hash|id)$", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
# Bits per character. Random base64 of 20 characters has about 4; words of a language joined by dashes stay below 3.8.
_BASE64_ENTROPY, _HEX_ENTROPY = 4.2, 3.0


def entropy(text: str) -> float:
    """Shannon entropy of a text, in bits per character."""
    counts = Counter(text)
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())


def looks_random(text: str) -> bool:
    """Whether some word in a text looks like a generated secret: hex of 32 or more, or mixed base64 of 20 or more."""
    for word in _WORD.findall(_PUBLIC.sub(" ", text)):
        bare = word.strip("=-_/+")
        if re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", bare):
            if entropy(bare) > _HEX_ENTROPY:
                return True
        elif _mixed(bare) and entropy(bare) > _BASE64_ENTROPY:
            return True
    return False


def _mixed(word: str) -> bool:
    """Digits between lower and upper case, and not a path or a name made of ordinary words."""
    if word.count("/") > 1 or word.count("-") > 3 or word.count("_") > 3:
        return False
    return bool(re.search(r"[a-z]", word) and re.search(r"[A-Z]", word) and len(re.findall(r"[0-9]", word)) >= 2)


def secret_in(name: str, value: Any) -> str | None:
    """What kind of secret a named plain value is, in words, or None."""
    if not isinstance(value, str) or not value:
        return None
    # Of a document its entries are judged, each by its own name: a revision inside is public, a token is not.
    if (document := _json(value)) is not None:
        leaves = ((re.sub(r"\[\d+\]$", "", path).rpartition(".")[2], text) for path, text in texts(document))
        return next((what for key, text in leaves if (what := secret_in(key or name, text))), None)
    for what, form in _KNOWN_FORMS.items():
        if form.search(value):
            return what
    # A switch is no secret, whatever it switches.
    if value.lower() in ("true", "false"):
        return None
    # $(VAR) is filled in by Kubernetes, from a Secret among others.
    if _SECRET_NAME.search(name) and not _NOT_SECRET.search(name) and not value.startswith("$("):
        return "a value whose name says that it is secret"
    if not _PUBLIC_NAME.search(name) and looks_random(value):
        return "a value that looks generated"
    return None


def _json(text: str) -> Any:
    """A text's object or list, None if it is none."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


@resource_rule(
    "no-secret-in-clear",
    why="What stands in an environment, an argument or a ConfigMap is read by everyone who may look at pods, and stays in logs.",
    fix="put the value into a Secret and refer to it by secretKeyRef or a mounted file",
    severity=Severity.CRITICAL,
)
def no_secret_in_clear(resource: Resource) -> Iterator[str]:
    if not (resource.is_kubernetes or resource.is_aws):
        return
    pod = pod_of(resource)
    if pod is not None:
        for container in pod.containers:
            yield from (f"{resource.label}: container {container.name}: {text}" for text in _container(container.spec))
    if resource.kind == "ConfigMap":
        for key, value in {**mapping(resource.props, "data"), **mapping(resource.props, "binaryData")}.items():
            if what := _document(key, value):
                yield f"{resource.label}: data[{key}] holds {what}"
    if resource.kind in ("Chart", "Release"):
        for path, value in texts(mapping(resource.props, "values")):
            if what := secret_in(path.rpartition(".")[2], value):
                yield f"{resource.label}: values.{path} is {what}"
    if resource.is_aws:
        for key in ("userData", "userDataBase64"):
            if what := _document(key, _decoded(at(resource.props, key))):
                yield f"{resource.label}: {key} holds {what}"
    for key, value in {**mapping(resource.meta, "annotations"), **mapping(resource.meta, "labels")}.items():
        if what := secret_in(key.rpartition("/")[2], value):
            yield f"{resource.label}: annotation or label {key} is {what}"


def _container(container: Mapping[str, Any]) -> Iterator[str]:
    for entry in items(container, "env"):
        name = at(entry, "name")
        if isinstance(name, str) and (what := secret_in(name, at(entry, "value"))):
            yield f"environment {name} is {what}"
    words = [word for field in ("command", "args") for word in items(container, field)]
    previous: str | None = None
    for word in words:
        if not isinstance(word, str):
            previous = None
            continue
        flag = _FLAG.match(word)
        if previous is not None and not flag and (what := secret_in(previous, word)):
            yield f"argument after --{previous} is {what}"
        elif flag and flag[2] is not None and (what := secret_in(flag[1], flag[2])):
            yield f"argument --{flag[1]} is {what}"
        elif not flag and previous is None and (what := secret_in("", word)):
            yield f"an argument is {what}"
        previous = flag[1] if flag and flag[2] is None else None


# `name = "value"`, `name: value` and the like inside scripts and configuration files; the value a literal, not an expression.
_ASSIGNMENT = re.compile(r"""["']?([A-Za-z][A-Za-z0-9_.-]*)["']?\s*[:=]\s*["']([^"'\s$<>{}]{6,})["']""")


def _document(key: str, text: Any) -> str | None:
    """What kind of secret a document holds, or None. Scripts name secrets all the time; only literal values count."""
    if not isinstance(text, str):
        return None
    for what, form in _KNOWN_FORMS.items():
        if form.search(text):
            return what
    if "\n" not in text:
        return secret_in(key, text)
    for name, value in _ASSIGNMENT.findall(text):
        if _SECRET_NAME.search(name) and not _NOT_SECRET.search(name) and re.search(r"[0-9]", value) and not value.isupper():
            return f"a literal value for {name}"
        if not _PUBLIC_NAME.search(name) and looks_random(value):
            return f"a value of {name} that looks generated"
    return None


def _decoded(text: Any) -> Any:
    """User data as its instance reads it: the API takes it as base64."""
    try:
        return base64.b64decode(text, validate=True).decode() if isinstance(text, str) else None
    except ValueError:
        return text


POLICIES = (no_secret_in_clear,)
