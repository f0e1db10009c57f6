"""How fast a service answers: a roofline over memory bandwidth, FLOPs and the link between GPUs, with three fitted shares.

Decoding reads all weights and every running request's KV cache once per step; prefilling multiplies every prompt token with all
weights. Both pay two all-reduces per layer under tensor parallelism. docs/planner.md derives each term and shows the calibration.
"""

from __future__ import annotations

from functools import cached_property
from math import ceil, sqrt

from mistral_on_l4.planner import memory
from mistral_on_l4.planner.catalogue.schema import Calibration
from mistral_on_l4.planner.checkpoint import HALF
from mistral_on_l4.planner.plan import GIB, LoadPoint, MemoryUse
from mistral_on_l4.planner.request import ServiceRequest

GIGA = 1e9
TERA = 1e12


class Speed:
    """Predictions for one service. offload_gib: weights per GPU that cross the PCIe link in every step."""

    def __init__(self, request: ServiceRequest, calibration: Calibration, offload_gib: float = 0.0) -> None:
        self.request, self.calibration, self.offload_gib = request, calibration, offload_gib
        self.bandwidth = request.gpu.bandwidth_gbs * GIGA * calibration.bandwidth_efficiency
        if request.kernel:
            self.bandwidth *= request.kernel.decode_share

    # -- parts of a step, in ms ----------------------------------------------------------------------------------------

    def memory_ms(self, batch: int, context: float) -> float:
        """Reading the resident weights and the KV cache of `batch` requests of `context` tokens."""
        request = self.request
        weights = request.weights.read_bytes(request.gpus, batch) - self.offload_gib * GIB
        shape = request.architecture
        beyond = max(0.0, context - shape.sliding_window) * shape.sliding_layers / shape.layers
        return (max(0.0, weights) + batch * (context - beyond) * request.kv_bytes_per_token) / self.bandwidth * 1e3

    def compute_ms(self, tokens: int, context: float, sampled: int) -> float:
        """Multiplying `tokens` with the layers, `sampled` of them with the head; attention of each over `context` tokens."""
        request, shape = self.request, self.request.architecture
        half, quantized = self._rates()
        linear = 2 * request.weights.active_linear_parameters * tokens
        head = 2 * request.weights.head_parameters * sampled
        attention = 4 * shape.layers * shape.heads * shape.head_dim * context * tokens
        return (linear / quantized + (head + attention) / half) / request.gpus * 1e3

    def reduce_ms(self, tokens: int) -> float:
        """Two all-reduces per layer of `tokens` rows of the hidden size; ring bandwidth 2(n-1)/n."""
        request, gpus = self.request, self.request.gpus
        if gpus == 1:
            return 0.0
        gpu, shape = request.gpu, request.architecture
        measured = [gbs for count, gbs in sorted(gpu.all_reduce_gbs.items()) if count <= gpus]
        bus = (measured[-1] if measured else gpu.link_gbs * self.calibration.fabric_efficiency) * GIGA
        volume = tokens * shape.hidden * HALF * 2 * (gpus - 1) / gpus
        return 2 * shape.layers * (gpu.all_reduce_us * 1e-3 + volume / bus * 1e3)

    def offload_ms(self, gbs: float) -> float:
        """One pass over the offloaded weights at a link rate in GB/s."""
        return self.offload_gib * GIB / (gbs * GIGA) * 1e3

    @property
    def offload_range_ms(self) -> tuple[float, float]:
        slow, fast = self.request.gpu.offload_gbs
        return self.offload_ms(fast), self.offload_ms(slow)

    @property
    def _usual_offload_ms(self) -> float:
        """For the points: the geometric mean of the plausible link rates."""
        slow, fast = self.request.gpu.offload_gbs
        return self.offload_ms(sqrt(slow * fast))

    # -- whole steps ---------------------------------------------------------------------------------------------------

    def decode_ms(self, batch: int, context: float, offload_ms: float | None = None) -> float:
        """One token for each of `batch` requests."""
        busy = max(self.memory_ms(batch, context), self.compute_ms(batch, context, batch))
        crossing = self._usual_offload_ms if offload_ms is None else offload_ms
        return busy + self.reduce_ms(batch) + crossing + self.request.engine.host_ms_per_step

    def prefill_ms(self, prompts: int) -> float:
        """First token of `prompts` prompts that came at once: as many steps as the engine's token limit makes."""
        request, length = self.request, self.request.workload.prompt_tokens
        tokens = prompts * length
        steps = ceil(tokens / request.batched_tokens)
        compute = self.compute_ms(tokens, length / 2, prompts)
        latency = self.reduce_ms(0) * (steps - 1)
        busy = max(compute, steps * self.memory_ms(prompts, 0))
        return busy + self.reduce_ms(tokens) + latency + steps * (self._usual_offload_ms + request.engine.host_ms_per_step)

    # -- what users see ------------------------------------------------------------------------------------------------

    def concurrent(self, users: int) -> int:
        """Requests that run at once: the engine's limit and the KV cache hold the rest back."""
        return min(users, self.request.sequences, self._held)

    def at(self, users: int, usd_per_hour: float | None, offload_ms: float | None = None) -> LoadPoint:
        """The prediction for `users`, see LoadPoint.

        While one request decodes, each of the others in its batch is prefilled once: that time is spread over its tokens.
        """
        work = self.request.workload
        batch = self.concurrent(users)
        first = self.prefill_ms(1)
        step = self.decode_ms(batch, work.prompt_tokens + work.output_tokens / 2, offload_ms)
        tpot = step + (batch - 1) * first / work.output_tokens
        answer = first + work.output_tokens * tpot
        # Those beyond the batch wait until that many requests before them are answered.
        waiting = (users - batch) / batch * answer
        per_second = batch * work.output_tokens / answer * 1e3
        cost = None if usd_per_hour is None else usd_per_hour / (per_second * 3600) * 1e6
        return LoadPoint(users, tpot, self.prefill_ms(batch) + waiting, per_second, cost)

    @cached_property
    def memory_use(self) -> MemoryUse:
        return memory.memory_use(self.request, self.offload_gib)

    @cached_property
    def _held(self) -> int:
        """Whole requests that the KV cache holds."""
        work = self.request.workload
        return max(1, int(memory.requests_held(self.request, self.memory_use, work.prompt_tokens + work.output_tokens)))

    def _rates(self) -> tuple[float, float]:
        """FLOPs per second of activations times unquantized weights, and times the layers' own."""
        request, kernel = self.request, self.request.kernel
        flops = request.gpu.tflops
        share = (request.gpu.prefill_share or self.calibration.compute_efficiency) * TERA
        half = flops.get("bf16") or flops["fp16"]
        native = request.loaded_as.scheme in ("fp8", "int8") and not request.loaded_as.weight_only and "fp8" in flops
        if kernel:
            native = native and kernel.native
        layers = (flops["fp8"] if native else half) * (kernel.prefill_share if kernel else 1.0)
        return half * share, layers * share
