"""Curves of the report as inline SVG: measured with a line, planned with dashes. Text stays text, in the page's own font."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from mistral_on_l4.planner.plan import LoadPoint
from mistral_on_l4.report.content import Inputs

# (title, axis, key of the measured value, value of the plan).
_CURVES: tuple[tuple[str, str, str, Callable[[LoadPoint], float]], ...] = (
    ("Time to first token, p95", "ms", "p95_ttft_ms", lambda point: point.ttft_ms),
    ("Time per output token", "ms", "mean_tpot_ms", lambda point: point.tpot_ms),
    ("Output tokens per second", "tokens/s", "output_throughput", lambda point: point.output_tokens_per_s),
)
# Wong's palette, told apart by colour-blind people too (Nature Methods 8, 441); and by their markers.
_COLOURS, _MARKERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), "os^D"


def curves(inputs: Inputs) -> list[str]:
    """One <svg> for each curve; () where nothing was measured."""
    if not any(measured.levels for measured in inputs.measured.values()):
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Ids come from a hash with this salt instead of a random one, so that the same figure is the same text.
    with mpl.rc_context({"svg.hashsalt": "mistral-on-l4", "svg.fonttype": "none", "font.family": "sans-serif"}):
        drawn = []
        for name, unit, key, value in _CURVES:
            figure: Any = Figure(figsize=(5.4, 3.4), layout="constrained")
            axes = figure.subplots()
            for number, service in enumerate(inputs.plan.services):
                style: dict[str, Any] = {"color": _COLOURS[number % 4], "marker": _MARKERS[number % 4]}
                points: tuple[LoadPoint, ...] = service.points
                axes.plot(
                    [point.users for point in points], [value(point) for point in points], linestyle="--", alpha=0.55, **style
                )
                measured = inputs.measured.get(service.name)
                levels: list[Mapping[str, Any]] = [one for one in measured.levels if one.get(key) is not None] if measured else []
                xs, ys = [int(one["max_concurrency"]) for one in levels], [float(one[key]) for one in levels]
                axes.plot(xs, ys, label=service.name, **style)
            axes.set(title=f"{name} (dashed: planned)", xlabel="users", ylabel=unit, xlim=(0, None), ylim=(0, None))
            axes.grid(visible=True, alpha=0.3)
            axes.legend()
            out = io.StringIO()
            figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
            text = out.getvalue()
            drawn.append(text[text.index("<svg") :].strip())
        return drawn
