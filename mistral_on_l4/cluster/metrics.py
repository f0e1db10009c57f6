"""What engines and GPUs say of themselves in Prometheus' text format, and which of it this project relies on.

Names of the engine: vllm/v1/metrics/loggers.py, 0.11.0. Names of the GPUs: the default counters of dcgm-exporter 4
(etc/default-counters.csv), which the dashboards of the source demo show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import requests
from prometheus_client.parser import text_string_to_metric_families

from mistral_on_l4.cluster.client import KubeClient

# As they stand in a scrape: counters end in _total, histograms have _bucket, _sum and _count.
ENGINE_SAMPLES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_bucket",
    "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket",
)
# vLLM before 0.11 spells the same otherwise.
FORMER_SAMPLES = {
    "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
    "vllm:inter_token_latency_seconds_bucket": "vllm:time_per_output_token_seconds_bucket",
}
GPU_SAMPLES = (
    "DCGM_FI_DEV_GPU_UTIL",
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_MEM_COPY_UTIL",
    "DCGM_FI_DEV_GPU_TEMP",
    "DCGM_FI_DEV_POWER_USAGE",
    "DCGM_FI_DEV_SM_CLOCK",
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
)
# Labels of the exporter's pods, set by its chart.
EXPORTER_SELECTOR = "app.kubernetes.io/name=dcgm-exporter"
EXPORTER_PORT = 9400
_SECONDS = 5.0


@dataclass(frozen=True)
class Sample:
    """One line of a scrape."""

    labels: Mapping[str, str]
    value: float


Scrape = Mapping[str, list[Sample]]


def parsed(text: str) -> Scrape:
    """Sample name -> samples. Raises ValueError for what is no such text."""
    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(Sample(sample.labels, float(sample.value)))
    return found


def engine_metrics(url: str) -> Scrape:
    """Of the engine at a base URL; its /metrics asks for no key. Raises requests.RequestException, ValueError."""
    with requests.Session() as session:
        session.trust_env = False  # no proxy stands between this machine and itself
        response = session.get(f"{url}/metrics", timeout=_SECONDS)
    response.raise_for_status()
    return parsed(response.text)


def missing_samples(scrape: Scrape) -> list[str]:
    """Those of ENGINE_SAMPLES that are neither there nor there under their former name."""
    return [name for name in ENGINE_SAMPLES if name not in scrape and FORMER_SAMPLES.get(name) not in scrape]


def total(scrape: Scrape, name: str) -> float | None:
    """The sum over all label sets; None without the sample."""
    samples = scrape.get(name) or scrape.get(FORMER_SAMPLES.get(name, ""))
    return sum(sample.value for sample in samples) if samples else None


def gpu_metrics(client: KubeClient, namespace: str | None = None) -> Scrape:
    """Of every DCGM exporter that runs, through the API server. Raises ApiError, ValueError; empty where none runs."""
    found: dict[str, list[Sample]] = {}
    pods = client.list("v1", "Pod", namespace, label_selector=EXPORTER_SELECTOR, field_selector="status.phase=Running")["items"]
    for pod in pods:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{EXPORTER_PORT}/proxy/metrics"
        for name, samples in parsed(str(client.request("GET", path, timeout=_SECONDS).get("text", ""))).items():
            found.setdefault(name, []).extend(samples)
    return found
