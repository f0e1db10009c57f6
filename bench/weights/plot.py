"""One small plot as SVG text, so that the benchmark needs no plotting library."""

from __future__ import annotations

from collections.abc import Mapping

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 340, 60, 50, 40, 20


def scaling_plot(rates: Mapping[int, float], limit: float) -> str:
    """Measured MB/s by number of files (and connections) beside the limit of that many connections, `limit` MB/s each."""
    most = max(rates) * limit * 1.05
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(count: float, rate: float) -> tuple[float, float]:
        return round(_LEFT + across * count / (max(rates) * 1.05), 1), round(_TOP + up * (1 - rate / most), 1)

    def line(points: list[tuple[float, float]], style: str) -> str:
        return f'<polyline fill="none" {style} points="{" ".join(f"{x},{y}" for x, y in points)}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="14">Seeding over 1 to 8 connections of {limit:.0f} MB/s each</text>',
        line([at(0, most), at(0, 0), at(max(rates) * 1.05, 0)], 'stroke="#444"'),
        line([at(0, 0), at(max(rates), max(rates) * limit)], 'stroke="#999" stroke-dasharray="5 4"'),
        line([at(count, rate) for count, rate in sorted(rates.items())], 'stroke="#1667b7" stroke-width="2"'),
    ]
    for count, rate in sorted(rates.items()):
        x, y = at(count, rate)
        floor = at(count, 0)[1]
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#1667b7"/>')
        parts.append(f'<text x="{x + 8}" y="{y + 14}">{rate:.0f}</text>')
        parts.append(f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{count}</text>')
    for mark in range(0, int(max(rates) * limit) + 1, 50):
        x, y = at(0, mark)
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{mark}</text>')
    x, y = at(max(rates) / 2, 0)
    parts.append(f'<text x="{x}" y="{y + 38}" text-anchor="middle">files = connections (256 MiB each); MB/s upwards</text>')
    x, y = at(max(rates) * 0.55, max(rates) * limit * 0.72)
    parts.append(f'<text x="{x}" y="{y}" text-anchor="end" fill="#777">limit</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
