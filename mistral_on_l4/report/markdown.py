"""The report as Markdown."""

from __future__ import annotations

from mistral_on_l4.report.content import Inputs, sections, title


def markdown(inputs: Inputs) -> str:
    parts = [f"# {title(inputs)}"]
    for section in sections(inputs):
        parts.append(f"## {section.title}")
        if section.columns:
            lines = [_row(section.columns), _row(["---"] * len(section.columns)), *map(_row, section.rows)]
            parts.append("\n".join(lines))
        parts += section.lines
    return "\n\n".join(parts) + "\n"


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
