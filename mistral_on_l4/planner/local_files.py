"""Facts of a checkpoint from files on this machine: config.json, and what lies beside it.

Beside it count hf_quant_config.json (ModelOpt), the headers of *.safetensors and the total of model.safetensors.index.json.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mistral_on_l4.planner.catalogue.schema import Architecture, Quantization
from mistral_on_l4.planner.checkpoint import HALF, Weights
from mistral_on_l4.planner.config_json import architecture_from, dtype_from, rough_parameters
from mistral_on_l4.planner.hub import QUANT_FILE, checkpoint_from, parse_config
from mistral_on_l4.planner.plan import NotComputed, PlanError
from mistral_on_l4.planner.quantization import quantization_from

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class LocalCheckpoint:
    """What the files say. exact: bytes by the headers, None where only config.json is there."""

    label: str
    architecture: Architecture
    quantization: Quantization
    dtype: str
    exact: Weights | None = None
    largest_file_gb: float = 5.0


def read_local(path: Path, name: str | None) -> LocalCheckpoint:
    """Reads a config.json, or the folder that holds it. Raises PlanError; NotComputed with the bytes that are known."""
    path = path / "config.json" if path.is_dir() else path
    config = parse_config(_text(path), str(path))
    beside = path.parent / QUANT_FILE
    quantized = parse_config(_text(beside), str(beside)) if beside.is_file() else None
    label = name or str(config.get("_name_or_path") or path.parent.absolute().name or "checkpoint")
    files = {file.name: header(file) for file in sorted(path.parent.glob("*.safetensors"))}
    if files:
        found = checkpoint_from(label, config, files, quantized)
        return LocalCheckpoint(label, found.architecture, found.quantization, found.dtype, found.weights, found.largest_file_gb)
    try:
        quantization = quantization_from(config, str(path), quantized)
        architecture = architecture_from(config, str(path))
        if quantization.partly:
            raise NotComputed(
                str(path), "some matrices of decoder layers stay unquantized: only the headers of its files tell its size"
            )
    except NotComputed as error:
        raise error.with_weights(_total(path.parent) or rough_parameters(config, str(path)) * HALF) from None
    return LocalCheckpoint(label, architecture, quantization, dtype_from(config))


def header(file: Path) -> SimpleNamespace:
    """The tensors of a safetensors file, in the shape of huggingface_hub's SafetensorsFileMetadata. Raises PlanError."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("its header is longer than any checkpoint's")
            found = json.loads(stream.read(length))
        tensors = {
            name: SimpleNamespace(dtype=info["dtype"], shape=info["shape"], data_offsets=tuple(info["data_offsets"]))
            for name, info in found.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise PlanError(f"{file}: a safetensors header cannot be parsed: {error}") from None
    return SimpleNamespace(tensors=tensors)


def _total(folder: Path) -> int:
    """Bytes of all tensors as the index of a sharded checkpoint gives them; 0 without one."""
    index = folder / INDEX
    if not index.is_file():
        return 0
    metadata: Mapping[str, Any] = parse_config(_text(index), str(index)).get("metadata") or {}
    total = metadata.get("total_size")
    return int(total) if isinstance(total, (int, float)) else 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise PlanError(f"--config {path}: {reason}") from None
