"""Kubernetes quantities such as 500m, 16Gi or 1e3, as exact numbers."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse(text: object) -> Decimal:
    """The number. Raises ValueError naming the text."""
    words = str(text).strip()
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if suffix and words.endswith(suffix):
            number = words[: -len(suffix)]
            break
    else:
        suffix, number = "", words
    try:
        value = Decimal(number) * _SUFFIXES[suffix]
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 2 or 16Gi") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is not a finite quantity")
    return value


def in_units(text: object, divisor: object) -> int:
    """How many divisors, rounded up, as the downward API gives them."""
    unit = parse(divisor)
    return math.ceil(parse(text) / (unit if unit else Decimal(1)))
