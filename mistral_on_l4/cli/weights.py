"""`demo weights verify|prune|status`: what the bucket holds of each checkpoint, compared with the manifests."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from mistral_on_l4.cli import Failure, terminal
from mistral_on_l4.cli.stacks import StackOption, acting_on, connection_to, stack_settings, whereabouts
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import Connection
from mistral_on_l4.config.settings import Settings
from mistral_on_l4.jobs.weights_limits import Failure as StoreFailure
from mistral_on_l4.jobs.weights_limits import Limits, Stop
from mistral_on_l4.jobs.weights_progress import gigabytes
from mistral_on_l4.jobs.weights_record import FOLDER, Notes, manifest_key, read_manifest
from mistral_on_l4.jobs.weights_store import Store
from mistral_on_l4.jobs.weights_verify import verify as read_all_back
from mistral_on_l4.manifests.object_store import NAME as MINIO

# Secrets in the object store's namespace: the first by components/object_store.py, the other where the store speaks TLS, by
# components/store_certificate.py.
_WRITER_SECRET = "weights-writer"
_TLS_SECRET = "minio-tls"
# A person waits: the job's patience would look like a hang.
_LIMITS = Limits(outage_seconds=10.0, stall_seconds=10.0)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Verify or prune the checkpoints in the bucket.")


@app.command()
def status(stack: StackOption = "local") -> None:
    """Show what the bucket holds of every checkpoint. Exit code 1 if one is not complete."""
    settings = stack_settings(stack)
    table = Table()
    for column in ("prefix", "checkpoint", "commit", "files", "size", "state"):
        table.add_column(column, overflow="fold")
    problems: dict[str, str] = {}
    with store_of(settings, stack) as store:
        for prefix in prefixes(settings):
            manifest = read_manifest(store, prefix)
            objects = store.objects(prefix)
            size = gigabytes(sum(item.size for item in objects.values()))
            if manifest is None:
                notes = Notes.read(store, prefix)
                state = "being filled" if notes.done or notes.uploads else "not there"
                problems[prefix] = f"{state}: no manifest yet"
                table.add_row(prefix, "-", "-", str(len(objects)), size, f"[yellow]{state}[/yellow]")
                continue
            differences = manifest.problems(objects)
            if differences:
                problems[prefix] = differences[0]
            state = f"[red]{differences[0]}[/red]" if differences else f"[green]complete[/green] since {manifest.finished}"
            table.add_row(prefix, manifest.repository, manifest.commit[:12], str(len(manifest.files)), size, state)
    terminal.console().print(table)
    if problems:
        raise Failure("; ".join(f"{prefix} {problem}" for prefix, problem in problems.items()))


@app.command()
def verify(
    stack: StackOption = "local",
    listing: Annotated[bool, typer.Option("--listing", help="Compare names, sizes and ETags only; read nothing.")] = False,
) -> None:
    """Read every file back from the bucket and compare its SHA-256 with the manifest. Exit code 1 if anything differs."""
    settings = stack_settings(stack)
    problems: list[str] = []
    with store_of(settings, stack) as store:
        for prefix in prefixes(settings):
            differences = read_all_back(store, prefix, Stop(), content=not listing)
            problems += [f"{prefix} {problem}" for problem in differences]
            print(f"{prefix}: {'; '.join(differences) or 'as its manifest says'}")
    if problems:
        raise Failure(f"{len(problems)} of what the manifests say is not so, such as: {problems[0]}")


@app.command()
def prune(
    stack: StackOption = "local",
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the list is only shown.")] = False,
) -> None:
    """Delete what belongs to no complete checkpoint: stray objects, unfinished uploads, prefixes of services that are gone.

    Objects below a prefix without a manifest are left alone, as a Job may be writing them. In an external bucket, which other
    stacks may share, only the prefixes of this stack's services are looked at.
    """
    settings = stack_settings(stack)
    with store_of(settings, stack, changing=yes) as store:
        objects, uploads, skipped = _prunable(store, prefixes(settings), shared=settings.object_store.kind == "external")
        for prefix in skipped:
            print(f"{prefix} has no manifest: a Job may be writing it, left alone")
        for key, upload in uploads:
            print(f"{'ending' if yes else 'would end'} an unfinished upload of {key}")
            if yes:
                store.abort(key, upload)
        for key, size in sorted(objects.items(), key=lambda item: (_turn(item[0]), item[0])):
            print(f"{'deleting' if yes else 'would delete'} {key} ({gigabytes(size)})")
            if yes:
                store.delete(key)
    if not objects and not uploads:
        print("nothing to delete")
    elif not yes:
        print(f"{gigabytes(sum(objects.values()))} in {len(objects)} objects and {len(uploads)} uploads; add --yes to delete them")


def _prunable(store: Store, wanted: list[str], shared: bool) -> tuple[dict[str, int], list[tuple[str, str]], list[str]]:
    """(objects by key with their bytes, uploads, prefixes that are left alone)."""
    objects: dict[str, int] = {}
    uploads: list[tuple[str, str]] = []
    skipped: list[str] = []
    records = {} if shared else store.objects(FOLDER)
    known = {key.removeprefix(FOLDER).removesuffix(".json").removesuffix(".unfinished") + "/" for key in records}
    for prefix in sorted({*wanted, *known}):
        manifest, notes = read_manifest(store, prefix), Notes.read(store, prefix)
        if manifest is None and prefix in wanted:
            skipped.append(prefix)
            continue
        below = store.objects(prefix)
        ours = {prefix + path for path in notes.paths | {file.path for file in (manifest.files if manifest else ())}}
        if manifest is not None and prefix in wanted:
            doomed = set(manifest.strangers(below))
        else:
            # Of ours, whole or begun, and of no service any more; what others put beside it stays.
            doomed = ours & set(below)
            objects |= {key: records[key].size for key in (manifest_key(prefix), notes.key) if key in records}
        objects |= {key: below[key].size for key in doomed}
        uploads += sorted(store.all_uploads(prefix, ours))
    return objects, uploads, skipped


def _turn(key: str) -> int:
    """Manifests go first, as one without its files would not be true; notes last, as they tell what else there is."""
    return (2 if key.endswith(".unfinished.json") else 0) if key.startswith(FOLDER) else 1


def prefixes(settings: Settings) -> list[str]:
    """Where the enabled services' checkpoints lie, each with its "/"."""
    return sorted({service.prefix for service in settings.enabled_services})


@contextmanager
def store_of(settings: Settings, stack: str, changing: bool = False) -> Iterator[Store]:
    """The stack's bucket, with the writer's keys from its Secret. Who is `changing` it says which first. Raises Failure."""
    with connection_to(settings, stack) as connection:
        if changing:
            acting_on(stack, whereabouts(connection))
        keys = _keys(connection)
        bucket = settings.object_store.bucket
        try:
            if settings.object_store.kind == "external":
                yield Store(bucket, _LIMITS, endpoint=settings.object_store.endpoint, keys=keys)
                return
            with connection.service(MINIO, settings.namespaces.object_store) as url, _authority(connection) as authority:
                endpoint = url.replace("http://127.0.0.1:", "https://localhost:") if authority else url
                yield Store(bucket, _LIMITS, endpoint=endpoint, keys=keys, authority=authority)
        except StoreFailure as failure:
            raise Failure(str(failure)) from None


@contextmanager
def _authority(connection: Connection) -> Iterator[str | None]:
    """A file with the CA that signed the store's certificate; None where the store speaks plain HTTP."""
    try:
        data = connection.client.get("v1", "Secret", _TLS_SECRET, connection.settings.namespaces.object_store)["data"]
    except ApiError as error:
        if error.status != 404:
            raise
        yield None
        return
    with tempfile.NamedTemporaryFile(suffix=".crt") as file:
        file.write(base64.b64decode(data["ca.crt"]))
        file.flush()
        yield file.name


def _keys(connection: Connection) -> tuple[str, str]:
    namespace = connection.settings.namespaces.object_store
    try:
        data = connection.client.get("v1", "Secret", _WRITER_SECRET, namespace)["data"]
    except ApiError as error:
        if error.status == 404:
            raise Failure(f"Secret {namespace}/{_WRITER_SECRET} does not exist: bring the stack up first") from None
        raise
    return base64.b64decode(data["AWS_ACCESS_KEY_ID"]).decode(), base64.b64decode(data["AWS_SECRET_ACCESS_KEY"]).decode()
