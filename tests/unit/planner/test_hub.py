from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import SafetensorsFileMetadata, TensorInfo

from mistral_on_l4.planner import NotComputed, PlanError
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.hub import HubRefused, HubUnreachable, checkpoint_from, read_checkpoint
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

FP8 = "RedHatAI/Mistral-Small-24B-Instruct-2501-FP8-dynamic"
CONFIG: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 131072,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}
QUANTIZED = {
    "fp8": {"num_bits": 8, "type": "float", "strategy": "channel", "group_size": None},
    "w4a16": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128},
}


def config_of(variant: str) -> dict[str, Any]:
    if variant == "bf16":
        return CONFIG
    groups = {"group_0": {"targets": ["Linear"], "weights": QUANTIZED[variant]}}
    return {**CONFIG, "quantization_config": {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}}


def files_of(header: dict[str, Any]) -> dict[str, SafetensorsFileMetadata]:
    tensors = {name: TensorInfo(each["dtype"], each["shape"], tuple(each["data_offsets"])) for name, each in header.items()}
    return {"model.safetensors": SafetensorsFileMetadata({}, tensors)}


@pytest.mark.parametrize("variant", ["bf16", "fp8", "w4a16"])
def test_headers_say_what_the_shapes_say(catalogue: Catalogue, header: Callable[[str], Any], variant: str) -> None:
    found = checkpoint_from("a/b", config_of(variant), files_of(header(variant)))
    model = catalogue.models["mistral-small-24b-instruct-2501"]
    known = dict(model.variants.items())[variant]  # type: ignore[index]
    assert found.architecture == model.architecture
    assert (found.quantization.scheme, found.quantization.group_size) == (known.quantization.scheme, known.quantization.group_size)
    from mistral_on_l4.planner.checkpoint import weights_of

    shapes = weights_of(model.architecture, known.quantization)
    assert found.weights.total_bytes == pytest.approx(shapes.total_bytes, rel=1e-6)
    assert found.weights.embedding_bytes == shapes.embedding_bytes
    assert found.weights.head_bytes == shapes.head_bytes
    assert found.weights.norm_bytes == shapes.norm_bytes


def test_headers_without_tensors_are_refused() -> None:
    with pytest.raises(PlanError, match="list no tensors"):
        checkpoint_from("a/b", CONFIG, files_of({}))


def response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None, text="", json=dict, history=[])


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)


REFUSALS = [
    (errors.GatedRepoError("no", response=response(403)), HubRefused, "is gated: accept its terms"),
    (errors.RepositoryNotFoundError("no", response=response(404)), HubRefused, "no repository a/b, or it is private"),
    (errors.NotASafetensorsRepoError("no"), HubRefused, "its size cannot be read"),
    (errors.SafetensorsParsingError("bad\nheader"), PlanError, "header cannot be parsed: bad$"),
    (errors.HfHubHTTPError("no", response=response(401)), HubRefused, "HTTP 401"),
    (errors.HfHubHTTPError("no", response=response(503)), HubUnreachable, "HTTP 503"),
    (errors.OfflineModeIsEnabled("HF_HUB_OFFLINE is set"), HubUnreachable, "HF_HUB_OFFLINE"),
    (vars(errors)["HTTPError"]("name or service not known"), HubUnreachable, "not known"),
    (ValueError("Expecting value"), PlanError, "metadata is corrupt: Expecting value"),
]


@pytest.mark.parametrize(("error", "kind", "says"), REFUSALS, ids=lambda each: type(each).__name__)
def test_what_the_hub_refuses_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], says: str
) -> None:
    failing(monkeypatch, error)
    with pytest.raises(kind, match=says) as caught:
        read_checkpoint("a/b")
    assert "\n" not in str(caught.value)


def test_without_a_network_the_catalogue_answers_and_says_so(monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue) -> None:
    failing(monkeypatch, vars(errors)["HTTPError"]("name or service not known"))
    found = plan_checkpoint(Question(model=FP8), catalogue)
    assert found.services[0].checkpoint == FP8
    assert found.notes[0] == f"the hub cannot be reached (name or service not known): the catalogue answers for {FP8}"


def test_a_gated_repository_that_the_catalogue_knows_is_planned_from_it(
    monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue
) -> None:
    failing(monkeypatch, errors.GatedRepoError("no", response=response(403)))
    found = plan_checkpoint(Question(model="mistralai/Mistral-Small-24B-Instruct-2501", gpu="H100"), catalogue)
    assert "is gated" in found.notes[0]
    assert found.services[0].fits


def test_without_a_network_an_unknown_checkpoint_gets_the_nearest_names(
    monkeypatch: pytest.MonkeyPatch, catalogue: Catalogue
) -> None:
    failing(monkeypatch, vars(errors)["HTTPError"]("name or service not known"))
    with pytest.raises(PlanError, match=f"did you mean .*{FP8}"):
        plan_checkpoint(Question(model="neuralmagic/Mistral-Small-24B-Instruct-FP8-dynamic"), catalogue)


def test_what_is_not_computed_is_weighed_by_its_headers(header: Callable[[str], Any]) -> None:
    files = files_of(header("bf16"))
    with pytest.raises(NotComputed, match=r"not computed: .*state space.*its weights are 43\.91 GiB"):
        checkpoint_from("a/b", {**CONFIG, "architectures": ["NemotronHForCausalLM"]}, files)


def test_how_it_is_quantized_may_stand_beside_the_config(header: Callable[[str], Any]) -> None:
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    found = checkpoint_from("a/b", CONFIG, files_of(header("fp8")), beside)
    assert (found.quantization.method, found.quantization.scheme) == ("modelopt", "fp8")


def test_a_towers_tensors_are_told_from_the_language_models(header: Callable[[str], Any]) -> None:
    tower = {"vision_tower.blocks.0.attn.qkv.weight": {"dtype": "BF16", "shape": [8, 8], "data_offsets": [0, 128]}}
    found = checkpoint_from("a/b", CONFIG, {**files_of(header("bf16")), "tower.safetensors": files_of(tower)["model.safetensors"]})
    assert found.weights.vision_bytes == 128
    assert found.weights.without_vision().total_bytes == found.weights.total_bytes - 128
