"""How many parameters the vision tower of a multimodal checkpoint has, projector included, from its vision_config.

    vit         patches, positions, layers of q, k, v, o [h, h] and two matrices [h, i], and one or two projections (SigLIP, CLIP)
    pixtral     the same with gate and up, no positions, and a merger of 2x2 patches (Mistral 3)
    qwen*_vl    patches over two frames, layers (2: ungated, 2.5: gated, 3: ungated with positions), mergers of 2x2 patches
    internvl    a vit whose 2x2 patches are merged before two projections
    mllama      a vit with global layers, and embeddings of tiles

Sizes were checked against the published ones: SigLIP 0.41 B, Pixtral 0.40 B, Qwen2-VL 0.675 B, Llama 3.2 Vision 0.87 B. Its profile
run, one step of the largest image, is not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistral_on_l4.planner.catalogue.families import family_defaults
from mistral_on_l4.planner.config_fields import Fields
from mistral_on_l4.planner.plan import PlanError

DEEPSTACK = 3  # mergers of Qwen3-VL beside the last one
_DEPTH = ("num_hidden_layers", "depth", "num_layers")


def tower_parameters(tower: str, config: Mapping[str, Any], hidden: int, config_type: str, source: str) -> int:
    """Parameters of the tower in config["vision_config"]; hidden: of the language model. 0 without a tower. Raises PlanError."""
    vision = config.get("vision_config")
    if tower == "none" or not vision:
        return 0
    if not isinstance(vision, Mapping):
        raise PlanError(f"{source}: vision_config is not an object")
    defaults = family_defaults().get(str(vision.get("model_type") or config_type), family_defaults().get(config_type, {}))
    fields = Fields(vision, defaults, source)
    if tower in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        return _qwen(tower, fields, hidden)
    layers, h, i = fields.number(_DEPTH), fields.number(("hidden_size",)), fields.number(("intermediate_size",))
    patch, image = _side(fields, "patch_size", 14), _side(fields, "image_size", 224)
    positions = (image // patch) ** 2
    patches = patch * patch * 3 * h
    if tower == "pixtral" or vision.get("model_type") == "pixtral":
        merger = (int(config.get("spatial_merge_size") or 2)) ** 2
        return layers * (4 * h * h + 3 * h * i + 2 * h) + patches + merger * h * h + h * hidden + hidden * hidden
    block = 4 * h * h + 2 * h * i + 9 * h + i
    if tower == "mllama":
        everything = layers + (fields.whole(("num_global_layers",)) or 8)
        tiles = (fields.whole(("max_num_tiles",)) or 4) * (positions + 1) * h * 9
        return everything * block + patches + tiles + (fields.whole(("vision_output_dim",)) or 6 * h) * hidden
    size = layers * block + patches + positions * h
    if tower == "internvl":
        return size + 4 * h * hidden + hidden * hidden
    scale = int(config.get("scale_factor") or 1) ** 2
    second = hidden * hidden if str(config.get("model_type", "")).startswith("llava") else 0
    return size + scale * h * hidden + second


def _qwen(tower: str, fields: Fields, hidden: int) -> int:
    h = fields.number(("embed_dim", "hidden_size") if tower == "qwen2_vl" else ("hidden_size",))
    i = int(4 * h if tower == "qwen2_vl" else fields.number(("intermediate_size",)))
    matrices = 3 if tower == "qwen2_5_vl" else 2
    merged = (fields.whole(("spatial_merge_size",)) or 2) ** 2 * h
    frames, patch = fields.whole(("temporal_patch_size",)) or 2, _side(fields, "patch_size", 14)
    size = fields.number(("depth",)) * (4 * h * h + matrices * h * i + 7 * h + i) + 3 * frames * patch * patch * h
    merger = merged * merged + merged * hidden
    if tower == "qwen3_vl":
        return size + (fields.whole(("num_position_embeddings",)) or 2304) * h + (1 + DEEPSTACK) * merger
    return size + merger


def _side(fields: Fields, name: str, usual: int) -> int:
    """A side of a square; some configs write it twice, as [height, width]."""
    value = fields.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, int) and value > 0 else usual
