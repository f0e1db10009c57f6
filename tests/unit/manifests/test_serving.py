"""The runtime that the services share."""

from __future__ import annotations

from mistral_on_l4.manifests.serving import serving_runtime


def test_an_engine_that_ends_leaves_the_end_of_its_log_as_its_message() -> None:
    [container] = serving_runtime("private-ai", "vllm", "1Gi")["spec"]["containers"]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
