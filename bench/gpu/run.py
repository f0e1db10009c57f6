"""Proof on a real GPU: `python3 bench/gpu/run.py --out DIR`. Needs one NVIDIA GPU and torch, nothing else of this project.

The process is capped at an L4's memory (torch's own allocator limit); then it builds the exact tensors of each variant in vLLM's
order. Speeds are those of the card that is there, next to the planner's figure for that card: an L4 is slower, its limit is not.
Writes result.json and result.md; the exit code is 1 if what loads is not what the planner says.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import shapes
import torch

GIB = 2**30
ROUNDING_GIB = 0.05  # 2 MiB blocks: at most 1 MiB on average for each of some 300 tensors of a part
REPEATS = 20
PROFILE_TOKENS, PROFILE_ROWS = 2048, 256  # vLLM's profile run below 70 GiB cards


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the model's tensors under an L4's memory limit, and time decode passes.")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json and result.md")
    out: Path = parser.parse_args().out
    if not torch.cuda.is_available():
        print("no CUDA device: this proof needs one NVIDIA GPU", file=sys.stderr)
        return 2
    predicted = json.loads(Path(__file__).with_name("prediction.json").read_text())
    properties = torch.cuda.get_device_properties(0)
    if properties.total_memory < predicted["cap_gib"] * GIB * 0.99:
        print(
            f"{properties.name} shows {properties.total_memory / GIB:.2f} GiB, less than the L4 that is imitated", file=sys.stderr
        )
        return 2
    result: dict[str, Any] = {
        "card": properties.name,
        "card_gib": round(properties.total_memory / GIB, 2),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cap_gib": predicted["cap_gib"],
    }
    cap(predicted["cap_gib"])
    result["cases"] = {
        name: {**load(name.partition("-")[0], case["gpus"], predicted["cap_gib"]), "predicted": case}
        for name, case in predicted["cases"].items()
    }
    result["with_kv_cache"] = with_kv_cache("w4a16", predicted["cases"]["w4a16"])
    result["offload"] = offload(predicted["offload_gib"])
    torch.cuda.set_per_process_memory_fraction(1.0)
    result["decode"] = decode(predicted)
    result["predicted_for_card"] = card_prediction(properties.name, predicted)
    problems = disagreements(result)
    result["problems"] = problems
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    (out / "result.md").write_text(markdown(result))
    print(markdown(result))
    return 1 if problems else 0


def cap(gib: float) -> None:
    """Lets torch's allocator of this process have no more than `gib`; the CUDA context comes on top, in favour of what is tried."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))


def clear() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def build(variant: str, gpus: int, held: list[torch.Tensor]) -> shapes.Tensor | None:
    """Allocates every tensor into `held`; the one that no memory was left for, or None."""
    for tensor in shapes.tensors(variant, gpus):
        try:
            held.append(torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype), device="cuda"))
        except torch.OutOfMemoryError:
            return tensor
    return None


def load(variant: str, gpus: int, cap_gib: float) -> dict[str, Any]:
    """Builds one GPU's part of a variant; where it ends, and what is left under the cap."""
    clear()
    held: list[torch.Tensor] = []
    failed = build(variant, gpus, held)
    allocated = torch.cuda.memory_allocated() / GIB
    found = {
        "loads": failed is None,
        "allocated_gib": round(allocated, 4),
        "remainder_gib": round(cap_gib - allocated, 4),
        "failed_at": failed.name if failed else None,
        "failed_gib": round(failed.size / GIB, 4) if failed else None,
    }
    held.clear()
    clear()
    return found


def with_kv_cache(variant: str, case: dict[str, Any]) -> dict[str, Any]:
    """Weights, the profile run's peaks (the MLP of a full step; a sampler pass), then the KV cache that the planner grants."""
    clear()
    held: list[torch.Tensor] = []
    build(variant, 1, held)
    weights = torch.cuda.memory_allocated()

    def peak(run: Callable[[], object]) -> float:
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - weights) / GIB

    try:
        step, sampler = peak(_step), peak(_sampler)
        cache = torch.empty(int(case["kv_gib"] * GIB), dtype=torch.uint8, device="cuda")
        again = peak(_sampler) - cache.numel() / GIB
        return {"step_gib": round(step, 3), "sampler_gib": round(sampler, 3), "kv_gib": case["kv_gib"], "runs": again > 0}
    except torch.OutOfMemoryError as error:
        return {"kv_gib": case["kv_gib"], "runs": False, "error": str(error).splitlines()[0]}
    finally:
        held.clear()
        clear()


def _step() -> torch.Tensor:
    """The widest point of a step: residual, input, gate and up, their product."""
    half = {"dtype": torch.bfloat16, "device": "cuda"}
    residual = torch.zeros(PROFILE_TOKENS, shapes.HIDDEN, **half)  # type: ignore[arg-type]
    normed = residual.clone()
    both = torch.zeros(PROFILE_TOKENS, 2 * shapes.INTERMEDIATE, **half)  # type: ignore[arg-type]
    gate, up = both.chunk(2, dim=-1)
    product = torch.empty(PROFILE_TOKENS, shapes.INTERMEDIATE, **half)  # type: ignore[arg-type]
    torch.mul(gate, up, out=product)
    return residual + normed + product[:, : shapes.HIDDEN]


def _sampler() -> torch.Tensor:
    """Top-p over the whole vocabulary: float logits, sorted with their indices, softmax and its sum, put back in place."""
    logits = torch.zeros(PROFILE_ROWS, shapes.VOCABULARY, dtype=torch.bfloat16, device="cuda").float()
    ordered, index = logits.sort(dim=-1)
    mass = ordered.softmax(dim=-1).cumsum(dim=-1)
    ordered.masked_fill_(mass <= 0.1, -float("inf"))
    return logits.scatter_(-1, index, ordered).softmax(dim=-1)


def timed(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median milliseconds of a pass, measured by CUDA events after two passes to warm up."""
    for _ in range(2):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


class _OnDevice:
    """A pinned host tensor as kernels see it: the same address in the unified space (what vLLM's UVA offload does)."""

    def __init__(self, pinned: torch.Tensor) -> None:
        self.pinned = pinned
        bits = pinned.view(torch.int16)
        self.__cuda_array_interface__ = {
            "shape": tuple(bits.shape),
            "typestr": "<i2",
            "data": (bits.data_ptr(), False),
            "version": 3,
        }


def offload(gib: float) -> dict[str, Any]:
    """One decode pass over `gib` of weights in pinned host memory: read in place by the kernels, and copied over before use."""
    clear()
    _, rows, columns = shapes.matrices(1)[2]
    each = rows * columns * 2
    count = max(1, round(gib * GIB / each))
    pinned = [torch.empty(rows, columns, dtype=torch.bfloat16).pin_memory() for _ in range(count)]
    for tensor in pinned:
        tensor.zero_()
    moved = count * each
    vector = torch.zeros(1, columns, dtype=torch.bfloat16, device="cuda")
    room = torch.empty(rows, columns, dtype=torch.bfloat16, device="cuda")

    def copied() -> None:
        for tensor in pinned:
            room.copy_(tensor, non_blocking=True)
            torch.nn.functional.linear(vector, room)

    found: dict[str, Any] = {"gib": round(moved / GIB, 3), "copied_ms": round(timed(copied, 5), 1)}
    try:
        views = [torch.as_tensor(_OnDevice(tensor), device="cuda").view(torch.bfloat16) for tensor in pinned]

        def in_place() -> None:
            for view in views:
                torch.nn.functional.linear(vector, view)

        found["in_place_ms"] = round(timed(in_place, 5), 1)
    except (RuntimeError, TypeError) as error:
        found["in_place_error"] = str(error).splitlines()[0]
    best = min(value for key, value in found.items() if key.endswith("_ms"))
    found["gbs"] = round(moved / best / 1e6, 1)
    return found


def decode(predicted: dict[str, Any]) -> dict[str, Any]:
    """All matrices of a decode pass in BF16, as one CUDA graph: whole if the card holds them, else one GPU's part of four."""
    clear()
    whole = predicted["decode_bytes"] * 1.1 < torch.cuda.get_device_properties(0).total_memory
    gpus = 1 if whole else 4
    weights = [
        torch.zeros(tensor.shape, dtype=torch.bfloat16, device="cuda")
        for tensor in shapes.tensors("bf16", gpus)
        if len(tensor.shape) == 2 and tensor.name != "embed_tokens"
    ]
    read = sum(weight.numel() * 2 for weight in weights)
    found: dict[str, Any] = {"gpus": gpus, "bytes": read, "ms": {}}
    for batch in (1, 30):
        inputs = {
            columns: torch.zeros(batch, columns, dtype=torch.bfloat16, device="cuda") for _, _, columns in shapes.matrices(gpus)
        }

        def one_pass(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for weight in weights:
                torch.nn.functional.linear(inputs[weight.shape[1]], weight)

        one_pass()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            one_pass()
        found["ms"][str(batch)] = round(timed(graph.replay), 3)
        del graph
    found["gbs"] = round(read / found["ms"]["1"] / 1e6, 1)
    weights.clear()
    clear()
    return found


def card_prediction(name: str, predicted: dict[str, Any]) -> dict[str, Any] | None:
    """The planner's figures for the card that is there, if its catalogue has it: the longest of its names that fits."""
    fits = [key for key in predicted["cards"] if all(part in name.replace(" ", "-").split("-") for part in key.split("-"))]
    if not fits:
        return None
    key = max(fits, key=len)
    return {"gpu": key, **predicted["cards"][key]}


def disagreements(result: dict[str, Any]) -> list[str]:
    """Where memory is not what the planner says. Bytes are exact arithmetic; torch rounds each tensor up to its blocks."""
    problems = []
    for name, case in result["cases"].items():
        expected = case["predicted"]
        if case["loads"] != expected["loads"]:
            problems.append(f"{name}: loads is {case['loads']}, predicted {expected['loads']}")
        if case["loads"] and abs(case["remainder_gib"] - expected["remainder_gib"]) > ROUNDING_GIB:
            problems.append(f"{name}: {case['remainder_gib']} GiB left, predicted {expected['remainder_gib']}")
    if not result["with_kv_cache"]["runs"]:
        problems.append("w4a16: no room for the KV cache that the planner grants beside a sampler pass")
    return problems


def markdown(result: dict[str, Any]) -> str:
    card, here = result["card"], result["predicted_for_card"]
    lines = [
        f"# {card}, torch {result['torch']}, {result['date']}: memory capped at an L4's {result['cap_gib']} GiB",
        "",
        "| variant (one GPU's part) | predicted | measured | left: predicted | left: measured |",
        "|---|---|---|---|---|",
    ]
    for name, case in result["cases"].items():
        expected = case["predicted"]
        said = f"{expected['weights_gib']:.2f} GiB, {'loads' if expected['loads'] else 'does not load'}"
        got = f"{case['allocated_gib']:.2f} GiB, loads"
        if not case["loads"]:
            got = f"dies at {case['failed_at']} ({case['failed_gib']:.2f} GiB) with {case['allocated_gib']:.2f} GiB held"
        left = f"{case['remainder_gib']:.2f}"
        lines.append(f"| {name} | {said} | {got} | {expected['remainder_gib']:.2f} | {left} |")
    kv = result["with_kv_cache"]
    lines += [
        "",
        f"W4A16 with the {kv['kv_gib']:.2f} GiB KV cache that the plan grants, and a sampler pass beside it: "
        f"{'runs' if kv['runs'] else 'does not run'}; peak of a step {kv.get('step_gib', '?')} GiB, of a sampler pass "
        f"{kv.get('sampler_gib', '?')} GiB.",
        "",
        "| speed, on this card | predicted for it | measured |",
        "|---|---|---|",
    ]
    decode, offload = result["decode"], result["offload"]
    for batch, milliseconds in decode["ms"].items():
        said = f"{here['decode_pass_ms'] / decode['gpus']:.1f} ms" if here else "not in the catalogue"
        part = "" if decode["gpus"] == 1 else f" (one GPU's part of {decode['gpus']})"
        lines.append(
            f"| decode pass over {decode['bytes'] / 1e9:.1f} GB of BF16{part}, batch {batch} | {said} | {milliseconds:.1f} ms |"
        )
    share = f", {decode['gbs'] / here['bandwidth_gbs']:.2f} of {here['bandwidth_gbs']}" if here else ""
    lines.append(f"| bandwidth of that pass | | {decode['gbs']:.0f} GB/s{share} |")
    said = f"{here['offload_ms'][0]:.0f}-{here['offload_ms'][1]:.0f} ms" if here else "not in the catalogue"
    way = f"{offload['in_place_ms']} ms in place, " if "in_place_ms" in offload else ""
    lines.append(
        f"| pass over {offload['gib']:.2f} GiB in pinned host memory | {said} | {way}{offload['copied_ms']} ms copied "
        f"({offload['gbs']:.0f} GB/s) |"
    )
    lines += ["", "Disagreements: " + ("; ".join(result["problems"]) or "none") + "."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
