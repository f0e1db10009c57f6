"""`demo plan`: does it fit, how fast will it be, what does it cost. For a stack, or for one checkpoint on one kind of GPU."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Annotated

import typer

from mistral_on_l4.cli import Failure
from mistral_on_l4.cli.suggest import Wanted, suggest_checkpoint, suggest_stack
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.planner.catalogue import Catalogue, CatalogueError, load_catalogue
from mistral_on_l4.planner.document import document, not_computed_document
from mistral_on_l4.planner.plan import NotComputed, PlanError, StackPlan
from mistral_on_l4.planner.request import Workload
from mistral_on_l4.planner.stack import plan_stack
from mistral_on_l4.planner.standalone import Question, plan_checkpoint

app = typer.Typer(add_completion=False)
MOST_USERS = 100_000


@app.command()
def plan(
    stack: Annotated[
        str | None, typer.Option("--stack", "-s", help="Plan Pulumi.<stack>.yaml of this folder: dev unless named.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the plan as Markdown.")] = False,
    model: Annotated[str | None, typer.Option(help="A checkpoint instead of a stack: org/name on the hub.")] = None,
    config: Annotated[Path | None, typer.Option(help="Its config.json as a local file, instead of the hub.")] = None,
    gpu: Annotated[str, typer.Option(help="Kind of GPU.")] = "L4",
    count: Annotated[int, typer.Option(min=1, max=64, help="How many of them.")] = 1,
    instance: Annotated[str | None, typer.Option(help="EC2 instance type, instead of the cheapest that has them.")] = None,
    precision: Annotated[str, typer.Option("--precision", "--dtype", help="auto, bf16, fp16, fp8 or w4a16.")] = "auto",
    tp: Annotated[int | None, typer.Option("--tp", min=1, help="Tensor parallelism, instead of all GPUs.")] = None,
    max_model_len: Annotated[int | None, typer.Option(min=1, help="Context in tokens.")] = None,
    max_num_seqs: Annotated[int | None, typer.Option(min=1, help="Requests that run at once.")] = None,
    kv_cache_dtype: Annotated[str, typer.Option(help="auto or fp8.")] = "auto",
    gpu_memory_utilization: Annotated[float | None, typer.Option(min=0.1, max=1.0, help="Share of the GPU for vLLM.")] = None,
    cpu_offload: Annotated[str, typer.Option(help="off, auto, or GiB of weights per GPU in node memory.")] = "off",
    engine: Annotated[str | None, typer.Option(help="Engine version of the catalogue.")] = None,
    vllm_args: Annotated[str, typer.Option("--vllm-args", help="More of vLLM's own arguments, as one text.")] = "",
    region: Annotated[str | None, typer.Option(help="AWS region to price in.")] = None,
    users: Annotated[str, typer.Option(help="Numbers of concurrent users, by comma.")] = "1,5,10",
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Length of a prompt.")] = 256,
    output_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer.")] = 256,
    slo: Annotated[str | None, typer.Option(help="Limits to search for, in ms: tpot=60,ttft=1500.")] = None,
    budget: Annotated[float | None, typer.Option(min=0.01, help="US dollars per hour that a choice may cost.")] = None,
    gpus: Annotated[str, typer.Option(help="Kinds of GPU to search, by comma, instead of all.")] = "",
    accuracy: Annotated[
        float | None, typer.Option(min=0, max=100, help="Least accuracy, in % of the unquantized model; 0: any, even unknown.")
    ] = None,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Search for the cheapest way to serve the model, or what the stack serves today, no slower and no less exact.",
        ),
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Print the stack file's lines for the cheapest choice.")] = False,
    live_prices: Annotated[bool, typer.Option("--live-prices", help="Ask the AWS Price List API for today's prices.")] = False,
) -> None:
    """Say whether each service fits, how fast it will be and what it costs."""
    if as_json and as_markdown:
        raise Failure("--json and --markdown exclude each other", 2)
    named = {"--model": model, "--slo": slo, "--stack": stack, "--gpu": gpu, "--engine": engine}
    if empty := next((option for option, value in named.items() if value is not None and not str(value).strip()), None):
        raise Failure(f"{empty} is empty: is a variable of the shell not set?", 2)
    if apply and as_json:
        raise Failure("--apply prints lines of a stack file, --json a document: name one", 2)
    if budget is not None and not math.isfinite(budget):
        raise Failure(f"--budget {budget}: write dollars per hour, or leave it out for no limit", 2)
    if stack and (model or config):
        raise Failure("name a stack (-s) or a checkpoint (--model, --config), not both", 2)
    if kv_cache_dtype not in ("auto", "fp8", "fp8_e4m3", "fp8_e5m2"):
        raise Failure(f"--kv-cache-dtype {kv_cache_dtype!r}: write auto or fp8", 2)
    question = Question(
        model=model,
        config=config,
        gpu=gpu,
        count=count,
        instance=instance,
        precision=precision,
        tensor_parallel_size=tp,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        kv_cache_dtype=kv_cache_dtype,
        gpu_memory_utilization=gpu_memory_utilization,
        cpu_offload=cpu_offload,
        engine=engine,
        region=region or "us-east-1",
        extra_args=_split(vllm_args),
        workload=Workload(_users(users), prompt_tokens, output_tokens),
    )
    backwards = suggest or slo or budget or gpus or accuracy is not None or apply
    wanted = Wanted(slo or "", budget, gpus, accuracy, apply, engine, max_model_len) if backwards else None
    if not (model or config):
        if misplaced := _misplaced(question):
            raise Failure(
                f"{misplaced} is for a checkpoint (--model, --config); a stack says it in Pulumi.{stack or 'dev'}.yaml", 2
            )
        if wanted and not suggest:
            raise Failure(
                "--slo and the other limits search for a checkpoint (--model), or with --suggest for a stack's services", 2
            )
    elif wanted and (chosen := _misplaced(question, *_SEARCHED)):
        raise Failure(f"{chosen} is what the search chooses: --gpus, --engine, --precision and --max-model-len narrow it", 2)
    try:
        _answer(question, stack, region, wanted, live_prices=live_prices, as_json=as_json, as_markdown=as_markdown)
    except NotComputed as error:
        if as_json:
            print(json.dumps(not_computed_document(error), indent=2))
        raise Failure(str(error), 2) from None
    except (PlanError, CatalogueError) as error:
        raise Failure(str(error), 2) from None


# Options that only a checkpoint has, by the field of Question that holds them.
_OF_A_CHECKPOINT = {
    "gpu": "--gpu",
    "count": "--count",
    "instance": "--instance",
    "precision": "--precision",
    "tensor_parallel_size": "--tp",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "kv_cache_dtype": "--kv-cache-dtype",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "cpu_offload": "--cpu-offload",
    "extra_args": "--vllm-args",
}


# Those of them that the search keeps to.
_SEARCHED = ("precision", "max_model_len")


def _misplaced(question: Question, *allowed: str) -> str | None:
    """The first option that was given although a stack is planned, or a search chooses it."""
    usual = Question()
    given = {option for name, option in _OF_A_CHECKPOINT.items() if getattr(question, name) != getattr(usual, name)}
    taken = {_OF_A_CHECKPOINT[name] for name in allowed}
    return next((option for option in _OF_A_CHECKPOINT.values() if option in given - taken), None)


def _answer(
    question: Question,
    stack: str | None,
    region: str | None,
    wanted: Wanted | None,
    *,
    live_prices: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Plans forwards, or backwards if something is wanted, and prints. A Failure for what cannot load or is not found."""
    catalogue = load_catalogue()
    if question.model or question.config:
        catalogue = _priced(catalogue, question.region, live_prices)
        if wanted:
            return suggest_checkpoint(wanted, question, catalogue, as_json=as_json)
        found = plan_checkpoint(question, catalogue)
    elif wanted:
        settings = _settings(stack or "dev", region)
        catalogue = _priced(catalogue, settings.region, live_prices)
        return suggest_stack(wanted, settings, question.workload, catalogue, as_json=as_json)
    else:
        if stack is None:
            typer.echo("demo: plan of stack dev, since none is named (-s)", err=True)
        found = _stack_plan(stack or "dev", region, question.engine, question.workload, live_prices, catalogue)
    _show(found, catalogue, as_json, as_markdown, live_prices)
    if found.misfits:
        raise Failure("\n".join(found.misfits))
    return None


def _stack_plan(
    stack: str, region: str | None, engine: str | None, workload: Workload, live_prices: bool, catalogue: Catalogue
) -> StackPlan:
    settings = _settings(stack, region)
    catalogue = _priced(catalogue, settings.region, live_prices)
    _check_lengths(workload, settings)
    return plan_stack(settings, stack=stack, engine=engine, catalogue=catalogue, workload=workload)


def _settings(stack: str, region: str | None) -> Settings:
    from mistral_on_l4.cli.stacks import stack_settings

    settings = stack_settings(stack)
    return settings.model_copy(update={"region": region}) if region else settings


def _check_lengths(workload: Workload, settings: Settings) -> None:
    """A Failure if the lengths that were asked for are more than a service takes; the usual ones are only remarked upon."""
    length, usual = workload.prompt_tokens + workload.output_tokens, Workload()
    if length <= usual.prompt_tokens + usual.output_tokens:
        return
    for service in settings.enabled_services:
        if length > service.max_model_len:
            raise Failure(
                f"prompt and output are {length} tokens, more than the maxModelLen {service.max_model_len} of {service.name}", 2
            )


def _priced(catalogue: Catalogue, region: str, live: bool) -> Catalogue:
    if not live:
        return catalogue
    from mistral_on_l4.planner.prices import with_live_prices

    return with_live_prices(catalogue, catalogue.known_region(region))


def _show(found: StackPlan, catalogue: Catalogue, as_json: bool, as_markdown: bool, live_prices: bool) -> None:
    if as_json:
        print(json.dumps(document(found), indent=2))
        for note in found.notes:
            typer.echo(f"demo: {note}", err=True)
        return
    from mistral_on_l4.planner import report

    prices = "asked of AWS today" if live_prices else f"of {catalogue.sources['karpenter-prices'].date}"
    if as_markdown:
        print(report.markdown(found, prices))
        return
    from mistral_on_l4.cli.terminal import console

    screen = console()
    for renderable in report.tables(found, prices):
        screen.print(renderable, highlight=False)


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Failure(f"--vllm-args {text!r}: {error}", 2) from None


def _users(text: str) -> tuple[int, ...]:
    """`1,5,10`. A Failure for what is not a list of whole numbers above zero."""
    try:
        users = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        users = ()
    if not users or min(users) < 1 or max(users) > MOST_USERS:
        raise Failure(f"--users {text!r}: write whole numbers from 1 to {MOST_USERS:,}, by comma, such as 1,5,10", 2)
    return users
