"""Facts of any checkpoint on the Hugging Face hub, from its config.json and the headers of its safetensors files alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistral_on_l4.planner.catalogue.schema import Architecture, Quantization
from mistral_on_l4.planner.checkpoint import HALF, Weights, weights_of
from mistral_on_l4.planner.config_json import architecture_from, dtype_from
from mistral_on_l4.planner.plan import NotComputed, PlanError
from mistral_on_l4.planner.quantization import quantization_from

TIMEOUT_SECONDS = 20
_EMBEDDING = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight")
_HEAD = ("lm_head.", "output.weight", "embed_out.")
_VISION = ("vision", "visual.", "multi_modal_projector", "mm_projector", "image_newline", "mlp1.", "connector.")
# ModelOpt's file beside a config.json that does not say how the checkpoint is quantized.
QUANT_FILE = "hf_quant_config.json"


class HubUnreachable(Exception):
    """The hub did not answer at all, or is not to be asked (HF_HUB_OFFLINE). One line."""


class HubRefused(PlanError):
    """The hub answered, but does not hand the metadata out: gated, private or missing."""


@dataclass(frozen=True)
class HubCheckpoint:
    """What the hub says of a checkpoint. weights: bytes as its headers list them; tensors: how many there are."""

    repository: str
    architecture: Architecture
    quantization: Quantization
    weights: Weights
    largest_file_gb: float
    tensors: int
    dtype: str = "auto"


def read_checkpoint(repository: str, *, revision: str | None = None, endpoint: str | None = None) -> HubCheckpoint:
    """Asks the hub: config.json, and the safetensors headers by range requests, never the weights.

    The token is huggingface_hub's own ($HF_TOKEN or the login). Raises HubUnreachable, HubRefused, PlanError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    # What all errors of huggingface_hub's HTTP client derive from, whichever client this version has.
    transport: type[Exception] = vars(hub)["HTTPError"]
    api = HfApi(endpoint=endpoint)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        # The one request that is not tried again: without a network it fails at once, a download after half a minute.
        info = api.model_info(repository, revision=revision, timeout=TIMEOUT_SECONDS)
        path = api.hf_hub_download(repository, "config.json", revision=revision, etag_timeout=TIMEOUT_SECONDS)
        metadata = api.get_safetensors_metadata(repository, revision=revision, timeout=TIMEOUT_SECONDS)
        beside = api.hf_hub_download(repository, QUANT_FILE, revision=revision) if QUANT_FILE in _names(info) else None
    except hub.GatedRepoError:
        raise HubRefused(
            f"{repository} is gated: accept its terms on the hub, and set HF_TOKEN to a token of that account"
        ) from None
    except hub.RepositoryNotFoundError:
        raise HubRefused(f"the hub has no repository {repository}, or it is private: check the name, or set HF_TOKEN") from None
    except hub.RevisionNotFoundError:
        raise HubRefused(f"{repository} has no revision {revision}") from None
    except hub.NotASafetensorsRepoError:
        raise HubRefused(
            f"{repository} holds no model.safetensors and no model.safetensors.index.json: its size cannot be read"
        ) from None
    except hub.SafetensorsParsingError as error:
        raise PlanError(f"{repository}: a safetensors header cannot be parsed: {_one_line(error)}") from None
    except hub.HFValidationError:
        raise PlanError(f"{repository!r} is not the name of a repository: write owner/name") from None
    except hub.RemoteEntryNotFoundError:
        raise HubRefused(f"{repository} has no config.json, or lacks a file that its index names") from None
    except hub.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise HubRefused(f"the hub does not let you read {repository} (HTTP {status}): set HF_TOKEN") from None
        raise HubUnreachable(f"HTTP {status} from the hub") from None
    except (transport, hub.LocalEntryNotFoundError, ConnectionError) as error:
        raise HubUnreachable(_one_line(error)) from None
    except ValueError as error:
        raise PlanError(f"{repository}: its metadata is corrupt: {_one_line(error)}") from None
    config = _read(path, f"config.json of {repository}")
    quantized = _read(beside, f"{QUANT_FILE} of {repository}") if beside else None
    return checkpoint_from(repository, config, metadata.files_metadata, quantized)


def _names(info: Any) -> set[str]:
    return {file.rfilename for file in info.siblings or ()}


def _read(path: str, source: str) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PlanError(f"{source} is not text") from None
    return parse_config(text, source)


def parse_config(text: str, source: str) -> dict[str, Any]:
    """A config.json's object. Raises PlanError."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise PlanError(f"{source} is not JSON: {_one_line(error)}") from None
    if not isinstance(config, dict):
        raise PlanError(f"{source} is not a JSON object")
    return config


def checkpoint_from(
    repository: str, config: Mapping[str, Any], files: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> HubCheckpoint:
    """Facts from config.json and the parsed headers by file (huggingface_hub's SafetensorsFileMetadata).

    beside: hf_quant_config.json. Raises PlanError; NotComputed with the bytes of the headers.
    """
    source = f"config.json of {repository}"
    tensors = [(name, info) for file in files.values() for name, info in file.tensors.items()]
    if not tensors:
        raise PlanError(f"{repository}: its safetensors headers list no tensors")
    try:
        architecture, quantization = architecture_from(config, source), quantization_from(config, source, beside)
    except NotComputed as error:
        raise error.with_weights(sum(info.data_offsets[1] - info.data_offsets[0] for _, info in tensors)) from None
    sizes = [max((info.data_offsets[1] for info in file.tensors.values()), default=0) for file in files.values()]
    weights = _weights(architecture, quantization, tensors)
    return HubCheckpoint(repository, architecture, quantization, weights, max(sizes) / 1e9, len(tensors), dtype_from(config))


def _weights(architecture: Architecture, quantization: Quantization, tensors: Iterable[tuple[str, Any]]) -> Weights:
    """Bytes as listed, by what they are; counts of parameters, for FLOPs, from the shapes of the architecture."""
    linear = experts = embedding = head = norm = vision = 0
    for name, info in tensors:
        size = info.data_offsets[1] - info.data_offsets[0]
        # A matrix stored in 32 bits is loaded in 16.
        if info.dtype == "F32" and len(info.shape) > 1 and quantization.scheme == "none":
            size = size // 4 * HALF
        if any(part in name for part in _VISION):
            vision += size
        elif name.endswith(_EMBEDDING):
            embedding += size
        elif name.startswith(_HEAD) or ".lm_head." in name:
            head += size
        elif ".experts." in name:
            experts += size
        elif len(info.shape) == 1 and "norm" in name:
            norm += size
        else:
            linear += size
    shapes = weights_of(architecture, quantization)
    return Weights(
        linear_bytes=linear,
        expert_bytes=experts,
        embedding_bytes=embedding,
        head_bytes=0 if architecture.tied_embeddings else head,
        norm_bytes=norm,
        linear_parameters=shapes.linear_parameters,
        expert_parameters=shapes.expert_parameters,
        head_parameters=shapes.head_parameters,
        experts=architecture.experts,
        experts_per_token=architecture.experts_per_token,
        vision_bytes=vision,
        kv_bytes=shapes.kv_bytes,
        kv_heads=shapes.kv_heads,
    )


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
