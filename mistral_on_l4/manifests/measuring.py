"""Jobs that measure a running service: our light probe, or `vllm bench serve` of the engine's own image.

They are `demo bench`'s and not Pulumi's, so they go by themselves after a day. Both print lines `RESULT {json}` with the keys of
`vllm bench serve --save-result` (vllm/benchmarks/serve.py), one for each level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mistral_on_l4.config.names import CLIENT_LABEL
from mistral_on_l4.jobs.measure_service import RESULT, Profile
from mistral_on_l4.manifests.jobs import Program, PythonJob, from_secret, python_job, script_pod, value
from mistral_on_l4.manifests.metadata import manifest, metadata
from mistral_on_l4.manifests.scripts import sources
from mistral_on_l4.manifests.security import PodUserIds, container_security
from mistral_on_l4.manifests.serving import API_KEY_SECRET, HOME

PROBE, ENGINE = "measure-service", "bench"
_TOKENIZER = "/tokenizer"
# The engine's image runs as this user (serving.py); the tokenizer's files are its group's.
_UID = 2000
_DAY_SECONDS = 86400

# What the numbers of one level are worth stands in the document; per-request lists and texts do not belong in a log.
_BENCH = f"""\
for users in $(echo "$LEVELS" | tr , ' '); do
  prompts=$((PROMPTS_PER_USER * users > LEAST_PROMPTS ? PROMPTS_PER_USER * users : LEAST_PROMPTS))
  echo "$users users: $prompts requests of $INPUT_TOKENS + $OUTPUT_TOKENS tokens"
  rm -f /tmp/result.json
  vllm bench serve --backend openai --endpoint /v1/completions --base-url "$SERVICE_URL" --model "$SERVICE_NAME" \\
    --tokenizer {_TOKENIZER} --dataset-name random --random-input-len "$INPUT_TOKENS" --random-output-len "$OUTPUT_TOKENS" \\
    --ignore-eos --seed "$users" --max-concurrency "$users" --num-prompts "$prompts" --disable-tqdm \\
    --percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 95,99 \\
    --save-result --result-dir /tmp --result-filename result.json || exit 1
  python3 -c 'import json
found = json.load(open("/tmp/result.json"))
print("{RESULT}" + json.dumps({{key: value for key, value in found.items() if not isinstance(value, list)}}), flush=True)'
done
"""


@dataclass(frozen=True)
class Measured:
    """What a Job measures. name: of the Job; url: of the service inside the cluster; guarded: whether it asks for the stack's key.

    image: KServe's storage initializer, for the probe and for fetching the tokenizer; deadline_seconds: of the whole.
    """

    name: str
    service: str
    namespace: str
    url: str
    profile: Profile
    guarded: bool
    image: str
    deadline_seconds: int
    pull_secret: str | None = None
    user_ids: PodUserIds = "fixed"


@dataclass(frozen=True)
class Bench:
    """The engine's own tool. prefix: of the checkpoint in the bucket; storage_key: of Secret storage-config.

    ca_config_map: with the CA of the store's certificate.
    """

    image: str
    prefix: str
    storage_key: str
    ca_config_map: str | None = None


def objects(measured: Measured, bench: Bench | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(ConfigMap of the scripts, Job). With `bench` the engine's own tool measures, without it our probe."""
    job_sources = sources("fetch_tokenizer" if bench else "measure_service")
    program = Program(
        sources=job_sources,
        config_map=measured.name,
        namespace=measured.namespace,
        image=measured.image,
        service_account="default",
        pull_secret=measured.pull_secret,
        user_ids=measured.user_ids,
    )
    env = _environment(measured)
    job = python_job(
        PythonJob(
            name=measured.name,
            component=PROBE if bench is None else ENGINE,
            program=program,
            env=env,
            deadline_seconds=measured.deadline_seconds,
            memory="256Mi",
            retries=0,
            pod_labels={CLIENT_LABEL: "true"},
        )
    )
    job["metadata"].pop("annotations", None)  # Pulumi's
    job["spec"]["ttlSecondsAfterFinished"] = _DAY_SECONDS
    pod = job["spec"]["template"]["spec"]
    if bench is not None:
        _measure_by_engine(pod, program, env, bench, measured.user_ids)
    # It asks services alone, never the API server.
    pod["automountServiceAccountToken"] = False
    return manifest("v1", "ConfigMap", metadata(measured.name, measured.namespace), data=job_sources.data), job


def _environment(measured: Measured) -> list[Mapping[str, Any]]:
    profile = measured.profile
    env: list[Mapping[str, Any]] = [
        value("SERVICE_NAME", measured.service),
        value("SERVICE_URL", measured.url),
        value("LEVELS", ",".join(map(str, profile.levels))),
        value("INPUT_TOKENS", str(profile.input_tokens)),
        value("OUTPUT_TOKENS", str(profile.output_tokens)),
        value("PROMPTS_PER_USER", str(profile.prompts_per_user)),
        value("LEAST_PROMPTS", str(profile.least_prompts)),
    ]
    if measured.guarded:
        env.append(from_secret("API_KEY", API_KEY_SECRET, "api-key"))
    return env


def _measure_by_engine(
    pod: dict[str, Any], program: Program, env: list[Mapping[str, Any]], bench: Bench, user_ids: PodUserIds
) -> None:
    """The tokenizer is fetched by our script first; then the engine's image measures beside it, without a GPU."""
    store = [from_secret("STORAGE_CONFIG", "storage-config", bench.storage_key), value("WEIGHTS_PREFIX", bench.prefix)]
    resources = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}
    fetching = script_pod("fetch-tokenizer", program, [*store, value("FOLDER", _TOKENIZER)], resources)
    [fetch] = fetching["containers"]
    place = {"name": "tokenizer", "mountPath": _TOKENIZER}
    fetch["volumeMounts"].append(place)
    pod["volumes"] += [
        {"name": "tokenizer", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "home", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    if bench.ca_config_map:
        fetch["volumeMounts"].append({"name": "store-ca", "mountPath": "/etc/store-ca", "readOnly": True})
        fetch["env"].append(value("CA_FOLDER", "/etc/store-ca"))
        pod["volumes"].append({"name": "store-ca", "configMap": {"name": bench.ca_config_map}})
    pod["initContainers"] = [fetch]
    pod["securityContext"] = {**pod["securityContext"], **({"fsGroup": 1000} if user_ids == "fixed" else {})}
    pod["containers"] = [
        {
            "name": ENGINE,
            "image": bench.image,
            "command": ["bash", "-c", _BENCH],
            "env": [
                # vllm bench sends this one.
                *({**entry, "name": "OPENAI_API_KEY"} if entry["name"] == "API_KEY" else dict(entry) for entry in env),
                value("HOME", HOME),
                value("HF_HUB_OFFLINE", "1"),
                value("VLLM_NO_USAGE_STATS", "1"),
                # It looks for a GPU when it starts, and needs none.
                value("CUDA_VISIBLE_DEVICES", ""),
            ],
            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "4", "memory": "8Gi"}},
            "securityContext": container_security(user_ids, {"runAsUser": _UID, "runAsGroup": 0}),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {**place, "readOnly": True},
                {"name": "home", "mountPath": HOME},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
    ]
