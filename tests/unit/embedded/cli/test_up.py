"""What `demo up` looks at before it says that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import create_autospec

import pytest

from embedded.cli import up
from embedded.cli.local_pulumi import exit_code
from mistral_on_l4.cli import Failure
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.cluster.registered import NoRegistry, RegistryReader


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
