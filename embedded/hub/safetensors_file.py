"""Writes safetensors files of seeded noise, without any array library.

Format: 8 bytes little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, then the data
(https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DType = Literal["BF16", "F8_E4M3", "I32", "I64"]
_ITEM_BYTES: dict[DType, int] = {"BF16": 2, "F8_E4M3": 1, "I32": 4, "I64": 8}

# High byte of a bfloat16: sign and the upper seven bits of the exponent. These four make values of about
# +-0.008 to +-0.12, so that nobody who loads the noise meets an infinity.
_BF16_HIGH = bytes((0x3C, 0x3D, 0xBC, 0xBD)[value & 3] for value in range(256))
# 0x7f and 0xff are the two NaNs of E4M3.
_FP8_SAFE = bytes(value & 0xBF for value in range(256))


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written. `values` are used as they are for I64 (shapes of packed weights), noise otherwise."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    values: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtype]


def write(path: Path, tensors: Sequence[Tensor], seed: int) -> None:
    """Writes one file; the same tensors and seed give the same bytes."""
    with path.open("wb") as file:
        file.write(header(tensors))
        for tensor in tensors:
            file.write(_content(tensor, random.Random(f"{seed}/{tensor.name}")))


def header(tensors: Sequence[Tensor]) -> bytes:
    """What comes before the tensors' bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Data starts at a multiple of 8, as the reference writer pads it.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _content(tensor: Tensor, source: random.Random) -> bytes:
    if tensor.values is not None:
        return b"".join(value.to_bytes(_ITEM_BYTES[tensor.dtype], "little", signed=True) for value in tensor.values)
    noise = source.randbytes(tensor.nbytes)
    if tensor.dtype == "BF16":
        data = bytearray(noise)
        data[1::2] = data[1::2].translate(_BF16_HIGH)
        return bytes(data)
    if tensor.dtype == "F8_E4M3":
        return noise.translate(_FP8_SAFE)
    return noise
