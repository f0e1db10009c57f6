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
from policies.reading import SecretText, at, items, texts
from policies.rule import Resource, Stack, StackFinding, resource_rule, stack_rule

# A name that says its value is secret. `..._FILE`, `..._PATH`, `..._NAME` and the like name where it is kept.
_SECRET_NAME = re.compile(
    r"(pass(word|wd|phrase|code)?|pwd|secret|token|bearer|cookie|api[-_]?key|access[-_]?key([-_]?id)?|(secret|private|signing|encryption"
    r"|master|account|session|license|deploy|service|shared|hmac)[-_]?key|credentials?|dsn|auth|auth(orization)?([-_]?(header|basic))?"
    r"|connection[-_]?string|webhook[-_]?url)$",
    re.IGNORECASE,
)
# Words that end like a secret's name and are none.
_NOT_SECRET = re.compile(
    r"(max|min|num|per|stop|eos|bos|pad)[-_]?tokens?$|tokenizer|(existing|pull|image|tls|config|admin)[-_]?secret$"
    r"|(http[-_]?tokens|automount[a-z]*token|enable[-_]?auth|require[-_]?auth)$",
    re.IGNORECASE,
)
_FLAG = re.compile(r"^--?([a-z0-9][a-z0-9-]*)(?:=(.*))?$", re.IGNORECASE | re.DOTALL)
_KNOWN_FORMS = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b"),
    "an API key": re.compile(r"\b(sk|pk|rk)[-_](live[-_]|test[-_]|ant[-_]|proj[-_])?[A-Za-z0-9_-]{20,}\b"),
    "a Slack token or webhook": re.compile(
        r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/\w+"
    ),
    "a Google key": re.compile(r"\bAIza[A-Za-z0-9_-]{35}\b"),
    "a GitLab token": re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}\b"),
    "a Pulumi token": re.compile(r"\bpul-[0-9a-f]{40}\b"),
    "a JSON Web Token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*"),
    "credentials of a request": re.compile(r"^(Bearer|Basic|Token)\s+[A-Za-z0-9+/=._~-]{8,}$", re.IGNORECASE),
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
    if names_a_secret(name) and not is_reference(value):
        return "a value whose name says that it is secret"
    if not _PUBLIC_NAME.search(name) and looks_random(value):
        return "a value that looks generated"
    return None


def names_a_secret(name: str) -> bool:
    """Whether a name says that its value is secret; a camelCase name as one of dashes would."""
    dashed = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return any(_SECRET_NAME.search(spelt) and not _NOT_SECRET.search(spelt) for spelt in (name, dashed))


# Filled in from elsewhere: $(VAR) and ${VAR}, templates, addresses of a secret; and words that are no values.
_REFERENCE = re.compile(
    r"\$[({A-Za-z]|\{\{|%\(|<[^<>]*>$|\*+$|arn:aws|/[a-z]|file:|vault:|secret:|(true|false|none|null|yes|no|on|off|auto|required|optional"
    r"|default|enabled|disabled|\d{1,5}|\[secret\])$",
    re.IGNORECASE,
)


def is_reference(value: str) -> bool:
    return bool(_REFERENCE.match(value.strip()))


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
    kept = resource.is_kubernetes and resource.kind == "Secret"
    for path, name, value in _named(resource.props, "", ""):
        if kept and path.startswith(("data", "stringData")):
            continue
        if what := _document(name, value, path):
            yield f"{resource.label}: {path} holds {what}"
    if resource.is_aws:
        for key in ("userData", "userDataBase64"):
            if what := _document(key, _decoded(at(resource.props, key)), key):
                yield f"{resource.label}: {key} holds {what}"


# Where a value names something that is kept elsewhere, and where Pulumi or a rule of its own looks.
_ELSEWHERE = re.compile(
    r"(secretKeyRef|configMapKeyRef|fieldRef|secretRef|configMapRef|volumeMounts|volumes|imagePullSecrets|tolerations|ports|resources"
    r"|nodeSelector|userData|userDataBase64)\b|(^|\.)(args|command|env)\[|__defaults|(^|\.)image$|(^|\.)(secretName|name|namespace|kind|apiVersion)$"
)


def _named(value: Any, path: str, name: str) -> Iterator[tuple[str, str, str]]:
    """(path, name, text) of every text; the value of a pair {name, value} or {key, value} has the pair's name."""
    if isinstance(value, str):
        if not _ELSEWHERE.search(path):
            yield path, name, value
    elif isinstance(value, Mapping):
        paired = next((value[key] for key in ("name", "key") if isinstance(value.get(key), str)), None)
        for key, item in value.items():
            own = paired if key == "value" and paired is not None else str(key)
            yield from _named(item, f"{path}.{key}".lstrip("."), own.rpartition("/")[2])
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _named(item, f"{path}[{index}]", name)


def _container(container: Mapping[str, Any]) -> Iterator[str]:
    for entry in items(container, "env"):
        name = at(entry, "name")
        if isinstance(name, str) and (what := _document(name, at(entry, "value"), "env")):
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
        elif not flag and previous is None and (what := _document("", word, "args")):
            yield f"an argument is {what}"
        previous = flag[1] if flag and flag[2] is None else None


# `name = "value"` in scripts, where only a literal counts; `name=value`, `name: value` and the like in configuration files.
_QUOTED = re.compile(r"""["']?([A-Za-z][A-Za-z0-9_.-]*)["']?\s*[:=]\s*["']([^"'\s$<>{}]{6,})["']""")
_PLAIN = re.compile(
    r"""^[ \t]*(?:export[ \t]+|-[ \t]+)?["']?([A-Za-z][A-Za-z0-9_.-]*)["']?[ \t]*[:=][ \t]*["']?([^\s"',;#]{4,})["']?[ \t]*,?$""",
    re.MULTILINE,
)
_SCRIPT = re.compile(r"\.(py|sh|js|ts|go|rb|lua|jinja2?|tmpl|tpl)$|^#!|^(import|from|def|class) ", re.MULTILINE)


def _document(name: str, text: Any, path: str) -> str | None:
    """What kind of secret a text holds, or None: a value, or a document of names and values in any format."""
    if not isinstance(text, str):
        return None
    for what, form in _KNOWN_FORMS.items():
        if form.search(text):
            return what
    if "\n" not in text.strip():
        found = secret_in(name, text)
        assigned = _PLAIN.fullmatch(text.strip()) if "=" in text and found is None else None
        return secret_in(assigned[1], assigned[2]) if assigned else found
    script = bool(_SCRIPT.search(path) or _SCRIPT.search(text))
    for key, value in _QUOTED.findall(text):
        if names_a_secret(key) and re.search(r"[0-9]", value) and not value.isupper() and not is_reference(value):
            return f"a literal value for {key}"
        if not _PUBLIC_NAME.search(key) and looks_random(value):
            return f"a value of {key} that looks generated"
    for key, value in () if script else _PLAIN.findall(text):
        if names_a_secret(key) and not is_reference(value):
            return f"a literal value for {key}"
        if not _PUBLIC_NAME.search(key) and looks_random(value):
            return f"a value of {key} that looks generated"
    return None


def _decoded(text: Any) -> Any:
    """User data as its instance reads it: the API takes it as base64."""
    try:
        return base64.b64decode(text, validate=True).decode() if isinstance(text, str) else None
    except ValueError:
        return text


# Shorter ones are found inside ordinary words.
_SHORTEST = 8


@stack_rule(
    "known-secrets-are-nowhere-else",
    why="A value that Pulumi keeps encrypted in one place and writes in clear in another is no secret.",
    fix="hand the secret on as an Output, into a Secret that the pod refers to",
    severity=Severity.CRITICAL,
)
def known_secrets_are_nowhere_else(stack: Stack) -> Iterator[StackFinding]:
    secrets = {str(text) for resource in stack.resources for _, text in texts(resource.props) if type(text) is SecretText}
    # Drawn and given secrets are one word; a certificate and a document are none, and what lies in them is a value of its own.
    known = {text for text in secrets if re.fullmatch(rf"\S{{{_SHORTEST},}}", text) and not text.startswith(("[secret]", "http"))}
    if not known:
        return
    anywhere = re.compile("|".join(re.escape(text) for text in sorted(known, key=len, reverse=True)))
    for resource in stack.resources:
        for path, text in texts(resource.props):
            if type(text) is not SecretText and anywhere.search(text):
                yield f"{resource.label}: {path} holds a secret of the stack", resource.urn


POLICIES = (no_secret_in_clear, known_secrets_are_nowhere_else)
