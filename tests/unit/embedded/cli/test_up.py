"""What `demo up` looks at before it says that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import yaml

from embedded.cli import up
from embedded.cli.local_pulumi import exit_code
from embedded.home import LocalHome
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.registered import NoRegistry, RegistryReader
from mistral_on_l4.config.settings import settings_from


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A registry that holds these models, or does not answer."""

    def holds(*names: str, away: bool = False) -> Any:
        reader = create_autospec(RegistryReader, instance=True)
        reader.models.return_value = [{"name": name, "id": "1", "state": "LIVE"} for name in names]

        @contextmanager
        def registry_of(_: Any) -> Iterator[Any]:
            if away:
                raise NoRegistry("the model registry does not answer: ConnectionError")
            yield reader

        monkeypatch.setattr(up, "registry_of", registry_of)
        return create_autospec(Connection, instance=True)

    return holds


def test_the_models_that_the_registry_holds_are_named(registry: Callable[..., Any]) -> None:
    assert up._registered(registry("a", "b")) == ["a", "b"]


def test_a_registry_that_lost_its_models_or_is_away_is_no_success(registry: Callable[..., Any]) -> None:
    with pytest.raises(Failure, match="holds no model"):
        up._registered(registry())
    with pytest.raises(Failure, match="does not answer"):
        up._registered(registry(away=True))


def test_a_pulumi_that_a_signal_ended_is_a_failure_in_words_with_a_shells_exit_code() -> None:
    assert exit_code(255, "up") == 255
    with pytest.raises(
        Failure, match=r"^`pulumi up` was ended by SIGKILL: the kernel does that when memory is short; run it"
    ) as ended:
        exit_code(-9, "up")
    assert ended.value.code == 137


def test_a_misspelt_engine_is_refused_with_the_nearest_one() -> None:
    settings = settings_from({"platform": "local"}, "test")
    with pytest.raises(Failure, match="no engine 'vlm': did you mean 'vllm'"):
        up._engine("vlm", settings)
    with pytest.raises(Failure, match="known are simulator, vllm"):
        up._engine("tgi", settings)
    assert up._engine(None, settings) == "simulator"


def test_another_engine_for_this_time_leaves_the_stacks_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "config:\n  mistral-on-l4:platform: local\n  mistral-on-l4:apiKey:\n    secure: v1:x\n"
    (tmp_path / "Pulumi.yaml").touch()
    (tmp_path / "Pulumi.local.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    copy = up._with_engine(LocalHome(tmp_path / "home"), "vllm")
    assert (tmp_path / "Pulumi.local.yaml").read_text() == text
    config = yaml.safe_load(copy.read_text())["config"]
    assert config["mistral-on-l4:local"] == {"engine": "vllm"}
    assert config["mistral-on-l4:apiKey"] == {"secure": "v1:x"}
