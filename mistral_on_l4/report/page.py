"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from html import escape

from mistral_on_l4.report.content import Inputs, Section, sections, title
from mistral_on_l4.report.plots import curves

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #14171a; background: #fff; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #c6ced4; padding: .35rem .6rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
th { background: #f0f3f5; font-size: .85rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots svg { max-width: 100%; height: auto; }
.table { overflow-x: auto; }
"""


def page(inputs: Inputs) -> str:
    drawn = curves(inputs)
    plots = f'<h2>Curves</h2><div class="plots">{"".join(drawn)}</div>' if drawn else ""
    first, *rest = sections(inputs)
    body = "\n".join([_section(first), plots, *map(_section, rest)])
    heading = escape(title(inputs))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{heading}</h1>\n{body}\n</body></html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.columns:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in section.columns)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows)
        parts.append(f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')
    parts += [f"<p>{escape(line)}</p>" for line in section.lines]
    return "\n".join(parts)
