"""What the model registry is told, by what the catalogue knows of a checkpoint."""

from __future__ import annotations

from typing import Any

from mistral_on_l4.config.settings import settings_from
from mistral_on_l4.manifests.registry_entry import registry_entry
from mistral_on_l4.planner import plan_stack
from mistral_on_l4.planner.catalogue import Catalogue, load_catalogue

SERVICE = {"name": "mistral", "variant": "fp8", "prefix": "mistral/", "pool": "l4-1gpu", "cpuOffload": "auto"}


def model_of(catalogue: Catalogue | None = None, **changes: Any) -> dict[str, Any]:
    settings = settings_from({"platform": "local", "services": [{**SERVICE, **changes}]}, "test")
    (service,) = settings.enabled_services
    plan = plan_stack(settings, stack="test").service(service.name)
    model: dict[str, Any] = registry_entry(service, plan, settings, catalogue or load_catalogue())["model"]
    return model


def test_a_checkpoint_of_the_catalogue_has_the_catalogues_name_and_licence() -> None:
    model = model_of()
    assert model["name"] == "Mistral-Small-24B-Instruct-FP8"
    assert model["customProperties"]["license"] == "Apache-2.0"
    assert model["customProperties"]["provider"] == "RedHatAI"
    assert {"mistral", "vllm", "text-to-text", "fp8"} < set(model["customProperties"])


def test_of_a_repository_that_nobody_knows_no_licence_is_claimed() -> None:
    model = model_of(repository="our-team/Fine-Tuned-24B")
    assert model["name"] == "Fine-Tuned-24B-FP8"
    assert "license" not in model["customProperties"]
    assert model["customProperties"]["provider"] == "our-team"


def test_name_and_licence_follow_the_catalogue() -> None:
    catalogue = load_catalogue()
    models = {key: model.model_copy(update={"title": "Other", "license": "MIT"}) for key, model in catalogue.models.items()}
    model = model_of(catalogue.model_copy(update={"models": models}))
    assert (model["name"], model["customProperties"]["license"]) == ("Other-FP8", "MIT")
