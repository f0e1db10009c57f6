"""Measures one service as `vllm bench serve` does, and writes the same JSON: users who each wait for an answer and then ask again.

Environment: SERVICE_NAME, SERVICE_URL, API_KEY (optional), LEVELS (users, with commas), INPUT_TOKENS, OUTPUT_TOKENS, and
PROMPTS_PER_USER, LEAST_PROMPTS. A line of progress about every five seconds; a line `RESULT {json}` for every level as soon as it
is there, so that what was measured before a failure is kept. Times are those of the client in this pod. Exit code 1 with one line
where nothing could be measured at all.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import requests

from mistral_on_l4.jobs.last_words import say_why

RESULT = "RESULT "
_PROGRESS_SECONDS = 5.0
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 600.0
# Token ids of every vocabulary in the catalogue that are no control tokens.
_FIRST_ID, _LAST_ID = 1000, 30000


class NothingMeasured(Exception):
    """No request was answered. One line."""


@dataclass(frozen=True)
class Profile:
    """input_tokens, output_tokens: of every request.

    Prompts at a level are prompts_per_user for each user, and least_prompts at least.
    """

    levels: tuple[int, ...]
    input_tokens: int
    output_tokens: int
    prompts_per_user: int = 2
    least_prompts: int = 3

    def prompts(self, users: int) -> int:
        return max(self.prompts_per_user * users, self.least_prompts)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Profile:
        levels = tuple(int(part) for part in environment["LEVELS"].split(","))
        sizes = (
            environment["INPUT_TOKENS"],
            environment["OUTPUT_TOKENS"],
            environment["PROMPTS_PER_USER"],
            environment["LEAST_PROMPTS"],
        )
        return cls(levels, *(int(size) for size in sizes))


@dataclass
class Request:
    """One request. ttft, itls, latency: seconds; tokens: by the service's own count; error: "" if it was answered whole."""

    ttft: float = 0.0
    itls: list[float] = field(default_factory=list)
    latency: float = 0.0
    tokens: int = 0
    error: str = ""


Ask = Callable[[Sequence[int], int], Request]


def asker(url: str, model: str, api_key: str | None) -> Ask:
    """Sends one prompt of token ids, so that no tokenizer is needed, and reads the stream."""
    local = threading.local()

    def ask(prompt: Sequence[int], output_tokens: int) -> Request:
        if not hasattr(local, "session"):
            local.session = requests.Session()
            local.session.headers.update({"Authorization": f"Bearer {api_key}"} if api_key else {})
        body = {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        made, begun = Request(), time.perf_counter()
        last = 0.0
        try:
            with local.session.post(
                f"{url}/v1/completions", json=body, stream=True, timeout=(_CONNECT_SECONDS, _READ_SECONDS)
            ) as response:
                if response.status_code != 200:
                    made.error = f"{response.status_code}: {' '.join(response.text.split())[:200]}"
                    return made
                for line in response.iter_lines(chunk_size=None):
                    if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
                        continue
                    event = json.loads(line[5:])
                    now = time.perf_counter()
                    if event.get("error"):
                        made.error = str(event["error"])[:200]
                    if (event.get("usage") or {}).get("completion_tokens"):
                        made.tokens = event["usage"]["completion_tokens"]
                    if any(choice.get("text") for choice in event.get("choices") or ()):
                        if last:
                            made.itls.append(now - last)
                        else:
                            made.ttft = now - begun
                        last = now
        except (requests.RequestException, ValueError) as error:
            made.error = f"{type(error).__name__}"
        if not last and not made.error:
            made.error = "an empty answer"
        made.latency = (last or time.perf_counter()) - begun
        made.tokens = made.tokens or (len(made.itls) + 1 if last else 0)
        if not made.error and made.tokens < output_tokens:
            made.error = f"{made.tokens} of {output_tokens} tokens"
        return made

    return ask


def measured(ask: Ask, profile: Profile, users: int, progress: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
    """One level: `users` at once until all prompts are answered. Returns the document of `vllm bench serve --save-result`."""
    wanted = profile.prompts(users)
    source = random.Random(users)  # the same prompts in every run
    prompts = [[source.randint(_FIRST_ID, _LAST_ID) for _ in range(profile.input_tokens)] for _ in range(wanted)]
    made: list[Request] = []
    lock = threading.Lock()

    def user() -> None:
        while True:
            with lock:
                if not prompts:
                    return
                prompt = prompts.pop()
            one = ask(prompt, profile.output_tokens)
            with lock:
                made.append(one)

    threads = [threading.Thread(target=user, daemon=True) for _ in range(users)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_PROGRESS_SECONDS)
            if thread.is_alive():
                progress(len(made), wanted)
    return document(made, profile, users, time.perf_counter() - begun)


def document(made: Sequence[Request], profile: Profile, users: int, duration: float) -> dict[str, Any]:
    """The keys of vllm/benchmarks/serve.py (0.11) as far as they are measured here: times in ms, throughput of whole answers."""
    whole = [one for one in made if not one.error]
    output = sum(one.tokens for one in whole)
    tpots = [(one.latency - one.ttft) / (one.tokens - 1) for one in whole if one.tokens > 1]
    found: dict[str, Any] = {
        "max_concurrency": users,
        "num_prompts": len(made),
        "duration": duration,
        "completed": len(whole),
        "total_input_tokens": len(whole) * profile.input_tokens,
        "total_output_tokens": output,
        "request_throughput": len(whole) / duration,
        "output_throughput": output / duration,
        "errors": sorted({one.error for one in made if one.error}),
    }
    for name, values in (
        ("ttft", [one.ttft for one in whole]),
        ("tpot", tpots),
        ("itl", [gap for one in whole for gap in one.itls]),
        ("e2el", [one.latency for one in whole]),
    ):
        found |= statistics_ms(name, values)
    return found


def statistics_ms(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    """mean_, median_, p95_ and p99_<name>_ms; None without a value. Percentiles are interpolated, as numpy's are."""
    ordered = sorted(value * 1000 for value in seconds)

    def percentile(share: float) -> float | None:
        if not ordered:
            return None
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    mean = sum(ordered) / len(ordered) if ordered else None
    return {
        f"mean_{name}_ms": mean,
        f"median_{name}_ms": percentile(0.5),
        f"p95_{name}_ms": percentile(0.95),
        f"p99_{name}_ms": percentile(0.99),
    }


def _progress(users: int, done: int, wanted: int) -> None:
    print(f"{users} users: {done} of {wanted}", flush=True)


def run(profile: Profile, ask: Ask) -> None:
    """Prints progress and results. Raises NothingMeasured."""
    answered = 0
    problem = ""
    for users in profile.levels:
        print(
            f"{users} users: {profile.prompts(users)} requests of {profile.input_tokens} + {profile.output_tokens} tokens",
            flush=True,
        )
        found = measured(ask, profile, users, partial(_progress, users))
        answered += found["completed"]
        problem = "; ".join(found["errors"]) or problem
        print(RESULT + json.dumps(found, separators=(",", ":")), flush=True)
    if not answered:
        raise NothingMeasured(f"no request was answered: {problem}")


def main() -> int:
    environment = os.environ
    try:
        run(
            Profile.from_environment(environment),
            asker(environment["SERVICE_URL"], environment["SERVICE_NAME"], environment.get("API_KEY") or None),
        )
        return 0
    except NothingMeasured as error:
        sentence = str(error)
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"the measurement failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
