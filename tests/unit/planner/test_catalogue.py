from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mistral_on_l4.planner import PlanError
from mistral_on_l4.planner.catalogue import Catalogue, CatalogueError, load_catalogue
from mistral_on_l4.planner.catalogue.loading import DATA

Edit = Callable[..., Catalogue]


@pytest.fixture
def edited(tmp_path: Path) -> Edit:
    """edited("gpus", "bandwidth_gbs: 300", "bandwidth_gbs: fast") -> the catalogue read from the changed files."""

    def read(file: str, old: str, new: str) -> Catalogue:
        folder = tmp_path / "data"
        shutil.copytree(DATA, folder)
        text = (folder / f"{file}.yaml").read_text()
        assert old in text
        (folder / f"{file}.yaml").write_text(text.replace(old, new, 1))
        return load_catalogue(folder)

    return read


def test_a_number_without_a_source_is_refused(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match=r"gpus\.L4\.\w+ has no known source"):
        edited("gpus", "sources: {visible_gib: l4-torch, ", "sources: {")


def test_a_licence_without_a_source_is_refused(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match=r"models\.mistral-small-24b-instruct-2501\.license has no known source"):
        edited("models", "  license: mistral-card\n", "")


def test_a_source_that_is_not_listed_is_refused(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match="has no known source"):
        edited("instances", "usd_per_hour: karpenter-prices", "usd_per_hour: hearsay")


def test_a_malformed_number_is_named_with_its_place(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match=r"catalogue: gpus\.L4\.bandwidth_gbs: .*valid number"):
        edited("gpus", "bandwidth_gbs: 300", "bandwidth_gbs: fast")


def test_an_unknown_key_is_refused(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match=r"gpus\.L4\.colour"):
        edited("gpus", "name: NVIDIA L4\n", "name: NVIDIA L4\n    colour: green\n")


def test_a_share_above_one_is_refused(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match="bandwidth_efficiency"):
        edited("stack", "bandwidth_efficiency: 0.775", "bandwidth_efficiency: 1.2")


def test_prices_are_those_of_the_cited_table(catalogue: Catalogue) -> None:
    prices = {name: instance.usd_per_hour["us-east-1"] for name, instance in catalogue.instances.items()}
    assert (prices["g6.xlarge"], prices["g6.2xlarge"], prices["g6.12xlarge"], prices["g6e.xlarge"]) == (
        0.8048,
        0.9776,
        4.6016,
        1.8610,
    )


def test_engines_know_where_offload_works(catalogue: Catalogue) -> None:
    assert {name: engine.cpu_offload for name, engine in catalogue.engines.items()} == {
        "vllm-0.11": "works",
        "vllm-0.20": "ignored",
        "vllm-0.33": "works",
    }


def test_the_rhoai_image_bounds_the_driver_from_above(catalogue: Catalogue) -> None:
    low, high = catalogue.engines["vllm-0.11"].images["openshift"].driver
    assert low <= 570 <= high < 580


def test_repositories_are_found_under_all_their_names(catalogue: Catalogue) -> None:
    names = ("RedHatAI/Mistral-Small-24B-Instruct-2501-FP8-dynamic", "neuralmagic/mistral-small-24b-instruct-2501-fp8-dynamic")
    assert [catalogue.checkpoint(name) for name in names] == [("mistral-small-24b-instruct-2501", "fp8")] * 2
    assert catalogue.checkpoint("neuralmagic/Mistral-Small-Instruct-24B-FP8") is None


def test_look_ups_offer_what_is_near_or_everything(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match="did you mean L40S or L4"):
        catalogue.gpu("L40")
    with pytest.raises(PlanError, match=r"the catalogue knows vllm-0\.11, vllm-0\.20, vllm-0\.33"):
        catalogue.engine("sglang")


def test_both_engines_that_may_be_the_default_have_an_image_for_every_platform(catalogue: Catalogue) -> None:
    for engine in ("vllm-0.11", "vllm-0.33"):
        assert set(catalogue.engines[engine].images) == {"local", "eks", "openshift"}


def test_rhoai_keeps_its_engine_whatever_the_default_is(catalogue: Catalogue) -> None:
    moved = catalogue.model_copy(update={"default_engine": "vllm-0.33"})
    assert (moved.engine_of("eks"), moved.engine_of("openshift")) == ("vllm-0.33", "vllm-0.11")


def test_an_engine_says_until_when_it_got_fixes_and_which_it_lacks(catalogue: Catalogue) -> None:
    old, new = catalogue.engines["vllm-0.11"], catalogue.engines["vllm-0.33"]
    assert old.fixed_until == "0.11.0"
    assert {advisory.id: advisory.fixed_in for advisory in old.advisories}["GHSA-mrw7-hf4f-83pf"] == "0.11.1"
    assert new.advisories == ()


def test_a_number_in_a_list_needs_a_source_too(edited: Edit) -> None:
    with pytest.raises(CatalogueError, match=r"engines\.vllm-0\.11\.kernels\.0\.prefill_share has no known source"):
        edited("engines", "  prefill_share: l4-kernels\n", "")
