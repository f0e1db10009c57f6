"""`demo report`: this deployment's own numbers as one self-contained HTML file and as Markdown."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.stacks import StackOption, stack_plan, stack_settings
from mistral_on_l4.cli.weights import store_of
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.files import write_whole
from mistral_on_l4.measuring.results import FOLDER, STANDARD, Measurement
from mistral_on_l4.planner.request import Workload

app = typer.Typer(add_completion=False)


@app.command()
def report(
    stack: StackOption = "local",
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file; Markdown goes beside it.")] = Path("report.html"),
    measured: Annotated[list[Path] | None, typer.Option("--from", help="Measurements as files instead of the bucket's.")] = None,
) -> None:
    """Write the report: services side by side, measured beside planned.

    It takes the newest measurement of each service from the bucket. The same inputs give the same bytes.
    """
    from mistral_on_l4.report.content import Inputs
    from mistral_on_l4.report.markdown import markdown
    from mistral_on_l4.report.page import page

    settings = stack_settings(stack)
    found = _from_files(measured) if measured else _newest(settings, stack)
    profile = max((one.profile for one in found.values()), key=lambda profile: len(profile.levels), default=STANDARD)
    plan = stack_plan(settings, stack, Workload(profile.levels, profile.input_tokens, profile.output_tokens))
    inputs = Inputs(plan, found, version=version("mistral-on-l4"))
    try:
        write_whole(output, page(inputs), mode=0o644)
        write_whole(output.with_suffix(".md"), markdown(inputs), mode=0o644)
    except OSError as error:
        raise Failure(f"{output}: {error.strerror}") from None
    print(f"{output} and {output.with_suffix('.md')}")
    if missing := [service.name for service in plan.services if service.name not in found]:
        raise Failure(f"not measured yet: {', '.join(missing)}: `demo bench -s {stack}`")


def _newest(settings: Settings, stack: str) -> dict[str, Measurement]:
    """By service. A standard measurement goes before a later one that is quick or not whole."""
    found: dict[str, Measurement] = {}
    with store_of(settings, stack) as store:
        for key in sorted(store.objects(f"{FOLDER}{stack}/")):
            data = store.read(key)
            if data is None:
                continue
            one = _read(data, key)
            if one.service not in found or one.standard >= found[one.service].standard:
                found[one.service] = one
    return found


def _from_files(paths: list[Path]) -> dict[str, Measurement]:
    found = {}
    for path in paths:
        try:
            one = _read(path.read_bytes(), str(path))
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}", code=2) from None
        found[one.service] = one
    return found


def _read(data: bytes, source: str) -> Measurement:
    try:
        return Measurement.from_json(data, source)
    except ValueError as error:
        raise Failure(str(error)) from None
