"""Types of single values in the configuration, each with its check and the sentence that a wrong value gets."""

from __future__ import annotations

import ipaddress
import re
from datetime import date, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

IMAGE_ROLES = ("engine", "minio", "mc", "jobs", "registry", "postgres")

# RFC 1123 label, at most 63: what Kubernetes accepts as the name of a namespace, a Service or a label value.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Safe in every S3 store and in a URL; names that begin with a dot are stores' own (.minio.sys, .sgwtmp). A file's name has at most
# 255 bytes in stores that keep files, with ".unfinished.json" for the last one.
_PREFIX_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_TIME_OF_PULUMI = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\S* \+0000 UTC")
# KServe appends "-predictor" and Kubernetes a ReplicaSet and pod suffix to the service's name, within the 63 of a label.
_MAX_SERVICE_NAME = 63 - len("-predictor")


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a Kubernetes name: use lower-case letters, digits and '-', starting and ending with a letter or "
            "digit, at most 63 characters"
        )
    return value


def _service_name(value: str) -> str:
    _label(value)
    if not value[0].isalpha():
        raise ValueError(f"{value!r} must start with a letter: KServe makes a Service of that name")
    if len(value) > _MAX_SERVICE_NAME:
        raise ValueError(f"{value!r} has {len(value)} characters: at most {_MAX_SERVICE_NAME}, since KServe appends '-predictor'")
    return value


def _prefix(value: str) -> str:
    if not value.endswith("/"):
        raise ValueError(
            f"{value!r} must end with '/': S3 lists by plain prefix, so {value!r} would also match '{value}-fp8/...'; "
            f"write {value + '/'!r}"
        )
    names = value[:-1].split("/")
    if any(name in ("", ".", "..") for name in names):
        plain = "/".join(name for name in names if name not in ("", ".", ".."))
        instead = f"; write {plain + '/'!r}" if plain else ""
        raise ValueError(
            f"{value!r} must not start with '/' or hold '//', './' or '../': stores read such paths differently{instead}"
        )
    for name in names:
        if not _PREFIX_NAME.fullmatch(name):
            raise ValueError(
                f"{value!r} may hold letters, digits, '.', '_' and '-', no name in it may start with '.': {name!r} does not fit"
            )
    # Where the seed jobs keep what they know of each prefix, under its own name.
    if names[0] == "_manifests" or names[-1].endswith(".unfinished"):
        raise ValueError(
            f"{value!r} is a name that the seed jobs use: '_manifests/' and names that end with '.unfinished' are theirs"
        )
    return value


def _bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError(f"{value!r} is not a bucket name: 3 to 63 lower-case letters, digits, '.' and '-'")
    return value


def _quantity(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]*(Mi|Gi|Ti)", value):
        raise ValueError(f"{value!r} is not a size: write a whole number with Mi, Gi or Ti, such as '200Gi'")
    return value


def _block(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as error:
        raise ValueError(f"{error}: write a block of addresses, such as 203.0.113.7/32") from None


def _date(value: str) -> str:
    if _TIME_OF_PULUMI.fullmatch(value):
        raise ValueError(f"{value!r} is what Pulumi makes of a date without quotes: write it in quotes, as '{value[:10]}'")
    try:
        # Python takes more forms of ISO 8601 than people mean here.
        date.fromisoformat(value if len(value) == 10 else "")
    except ValueError as error:
        raise ValueError(f"{value!r} is no date ({error}): write YYYY-MM-DD") from None
    return value


def _span(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[mhd]", value):
        raise ValueError(f"{value!r} is no span of time: write minutes, hours or days, such as 90m, 4h or 2d")
    return value


def span(value: str) -> timedelta:
    """What a `Span` says."""
    return timedelta(minutes=int(value[:-1]) * {"m": 1, "h": 60, "d": 24 * 60}[value[-1]])


def checked_span(value: str) -> timedelta:
    """The same of text that somebody has typed. Raises ValueError."""
    return span(_span(value))


def _role(value: str) -> str:
    if value not in IMAGE_ROLES:
        raise ValueError(f"no image has the role {value!r}: the roles are {', '.join(IMAGE_ROLES)}")
    return value


Label = Annotated[str, AfterValidator(_label)]
ServiceName = Annotated[str, AfterValidator(_service_name)]
Prefix = Annotated[str, AfterValidator(_prefix)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Span = Annotated[str, AfterValidator(_span)]
Block = Annotated[str, AfterValidator(_block)]
Role = Annotated[str, AfterValidator(_role)]
# The pattern is for editors: the check's own words are better.
Date = Annotated[str, AfterValidator(_date), Field(json_schema_extra={"pattern": r"^\d{4}-\d{2}-\d{2}$"})]
