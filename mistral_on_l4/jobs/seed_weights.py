"""Brings a checkpoint from the hub into a bucket, proves every byte, and writes the manifest that says so.

Runs as `python -m mistral_on_l4.jobs.seed_weights` in KServe's storage-initializer image: it uses what that image holds
(Python 3.11, boto3, huggingface_hub, requests). Content goes from ranged reads straight into the parts of S3 uploads; no disk is
used, and memory is bounded (`Limits.buffer_bytes`: 24 parts of 16 MiB at defaults).

Environment: HF_ENDPOINT, HF_TOKEN (optional); WEIGHTS_REPOSITORY, WEIGHTS_REVISION, WEIGHTS_BUCKET, WEIGHTS_PREFIX;
AWS_ENDPOINT_URL and credentials; POD_NAME, POD_NAMESPACE; WEIGHTS_MODE (optional): seed, or verify (reads everything back and
changes nothing); the fields of `Limits` (optional).

A kill at any moment loses the parts in flight. The next run finds the unfinished uploads and sends what they lack; as the
first parts of such a file never passed through that run, it reads the file back from the store and checks its SHA-256 before
it believes it (cost: those files, once, at the store's speed). Files that were whole are not touched again.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from mistral_on_l4.jobs.last_words import say_why
from mistral_on_l4.jobs.trust import Untrusted, trust_extra_authority
from mistral_on_l4.jobs.weights_checkpoint import check
from mistral_on_l4.jobs.weights_files import HubFile, select
from mistral_on_l4.jobs.weights_hub import Hub, Snapshot
from mistral_on_l4.jobs.weights_lease import lease_for
from mistral_on_l4.jobs.weights_limits import Failure, Interrupted, Limits, Stop, Stopped
from mistral_on_l4.jobs.weights_progress import Progress, duration, gigabytes
from mistral_on_l4.jobs.weights_record import Manifest, Notes, SeededFile, manifest_key, read_manifest, serves_file
from mistral_on_l4.jobs.weights_store import Store, StoredObject
from mistral_on_l4.jobs.weights_transfer import Task, Transfer, begin, read_back
from mistral_on_l4.jobs.weights_verify import verify

# As long as the Job itself may last: another writer may need all of it.
_LEASE_SECONDS = 4 * 3600.0
_LOOKERS = 8
_STRANGERS_NAMED = 10


@dataclass(frozen=True)
class Order:
    """What to bring where. prefix: ends with "/"; revision: commit, tag or branch."""

    endpoint: str
    repository: str
    revision: str
    bucket: str
    prefix: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Order:
        """Raises Failure for what is missing."""

        def required(name: str) -> str:
            value = environment.get(name, "").strip()
            if not value:
                raise Failure(f"{name} is not set")
            return value

        order = cls(
            environment.get("HF_ENDPOINT") or "https://huggingface.co",
            required("WEIGHTS_REPOSITORY"),
            required("WEIGHTS_REVISION"),
            required("WEIGHTS_BUCKET"),
            required("WEIGHTS_PREFIX"),
        )
        manifest_key(order.prefix)
        return order

    @property
    def place(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


def say(text: str) -> None:
    print(text, flush=True)


def finished_manifest(store: Store, order: Order) -> Manifest | None:
    """The manifest, if it is of what is wanted and the bucket still holds exactly that; two requests."""
    manifest = read_manifest(store, order.prefix)
    if manifest is None or not manifest.serves(order.repository, order.revision):
        return None
    objects = store.objects(order.prefix)
    problems = manifest.problems(objects)
    for problem in problems:
        say(f"the manifest is there, but {problem}")
    if problems:
        return None
    warn_of_strangers(manifest, objects)
    return manifest


def warn_of_strangers(manifest: Manifest, objects: Mapping[str, StoredObject]) -> None:
    strangers = manifest.strangers(objects)
    if strangers:
        named = ", ".join(strangers[:_STRANGERS_NAMED]) + (" and others" if len(strangers) > _STRANGERS_NAMED else "")
        say(
            f"warning: {len(strangers)} objects below {manifest.prefix} are no part of the checkpoint, and every model server "
            f"downloads them too: {named}; `demo weights prune` deletes them"
        )


def seed(order: Order, store: Store, limits: Limits, environment: Mapping[str, str], stop: Stop) -> Manifest:
    """All of it; the manifest that is in the bucket then. Raises Failure, Stopped."""
    hub = Hub(order.endpoint, environment.get("HF_TOKEN") or None, limits, stop)
    with Progress(say, limits.report_seconds, lambda: hub.patience.waiting() or store.patience.waiting()) as progress:
        manifest = finished_manifest(store, order)
        if manifest is None:
            lease = lease_for(environment, order.bucket, order.prefix, stop, stop.because)
            if lease is None:
                return Seeding(order, store, hub, limits, progress, stop).run()
            try:
                lease.acquire(_LEASE_SECONDS, say)
                # Another writer may have ended since the look above, without a wait.
                manifest = finished_manifest(store, order)
                if manifest is None:
                    return Seeding(order, store, hub, limits, progress, stop).run()
            finally:
                lease.release()
    say(
        f"nothing to do: {order.place} holds {manifest.repository} at {manifest.commit} "
        f"({len(manifest.files)} files, {gigabytes(manifest.size)}) since {manifest.finished}"
    )
    return manifest


class Seeding:
    """One run that has something to do; the caller holds the prefix's lease."""

    def __init__(self, order: Order, store: Store, hub: Hub, limits: Limits, progress: Progress, stop: Stop) -> None:
        self._order, self._store, self._hub = order, store, hub
        self._limits, self._progress, self._stop = limits, progress, stop

    def run(self) -> Manifest:
        began = time.monotonic()
        order, store = self._order, self._store
        snapshot = self._hub.snapshot(order.repository, order.revision)
        files = select(order.repository, snapshot.files)
        check(self._hub, snapshot, files)
        total = sum(file.size for file in files)
        say(f"{order.repository} at {snapshot.commit}: {len(files)} files, {gigabytes(total)}, to {order.place}")
        objects = store.objects(order.prefix)
        notes = self._open_notes(files, objects)
        proven, tasks = self._standing(snapshot, files, notes, objects)
        present = {path: done.size for path, done in proven.items()} | {task.file.path: task.present_bytes() for task in tasks}
        if any(present.values()):
            say(f"the bucket already has {gigabytes(sum(present.values()))} of it, {len(proven)} files whole")
        self._progress.began({file.path: file.size for file in files}, present)
        proven |= Transfer(self._hub, snapshot, store, notes, self._limits, self._progress, self._stop).run(tasks)
        manifest = Manifest(
            order.repository,
            order.revision,
            snapshot.commit,
            order.prefix,
            datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            tuple(proven[file.path] for file in files),
        )
        self._finish(manifest, notes)
        seconds, came = time.monotonic() - began, self._progress.received_bytes
        say(
            f"done: {order.place} holds {len(files)} files, {gigabytes(total)}, all proven; "
            f"{gigabytes(came)} came from the hub in {duration(seconds)} ({came / 1e6 / seconds:.1f} MB/s)"
        )
        return manifest

    def _open_notes(self, files: tuple[HubFile, ...], objects: Mapping[str, StoredObject]) -> Notes:
        """The notes of an earlier run; what an older manifest proved goes into them, and that manifest goes away.

        It must be gone before the first object changes: who reads it trusts it. What is to be written is noted before it is: a
        run of another revision removes it, should this one be killed and given up.
        """
        order, store = self._order, self._store
        notes = Notes.read(store, order.prefix)
        old = read_manifest(store, order.prefix)
        if old is not None:
            notes.previous |= {file.path for file in old.files}
            notes.done = {file.path: file for file in old.files if file.is_at(objects.get(order.prefix + file.path))} | notes.done
        notes.previous |= notes.paths | {file.path for file in files}
        notes.write(store)
        store.delete(manifest_key(order.prefix))
        return notes

    def _standing(
        self, snapshot: Snapshot, files: tuple[HubFile, ...], notes: Notes, objects: Mapping[str, StoredObject]
    ) -> tuple[dict[str, SeededFile], list[Task]]:
        """Files that are in the bucket and proven, and tasks for the others. Ends uploads that nobody will finish."""
        noted = {(self._order.prefix + path, upload.upload) for path, upload in notes.uploads.items()}
        with ThreadPoolExecutor(_LOOKERS) as pool:
            standing = list(pool.map(lambda file: self._look(snapshot, file, notes, objects), files))
        proven = {file.path: file for file in standing if isinstance(file, SeededFile)}
        notes.done = dict(proven)
        tasks = [task for task in standing if isinstance(task, Task)]
        self._abort_stale(noted, tasks, notes)
        # Large ones first: the last to end should not be one that began late.
        return proven, sorted(tasks, key=lambda task: -task.file.size)

    def _look(self, snapshot: Snapshot, file: HubFile, notes: Notes, objects: Mapping[str, StoredObject]) -> SeededFile | Task:
        key = self._order.prefix + file.path
        stored, done = objects.get(key), notes.done.get(file.path)
        if done is not None and done.is_at(stored) and serves_file(done, file):
            return done
        if stored is not None and stored.size == file.size:
            # Whole, and nobody wrote down that it was proven: the kill came in between, or somebody copied it here.
            back = read_back(self._store, file, stored, self._stop)
            if isinstance(back, SeededFile):
                return back
        upload = notes.uploads.get(file.path)
        part_bytes = self._limits.part_bytes(file.size)
        if file.size <= part_bytes:
            return Task(file, key, part_bytes)
        # Larger parts than now are beyond the bound of memory.
        if upload is not None and upload.identity == file.identity and upload.part_bytes <= part_bytes:
            parts = self._store.parts(key, upload.upload)
            if parts is not None:
                task = Task(file, key, upload.part_bytes, upload.upload)
                have = {part.number: part for part in parts if part.number <= task.count and part.size == task.length(part.number)}
                return Task(file, key, upload.part_bytes, upload.upload, have)
        new = begin(self._store, notes, file, key, part_bytes, snapshot.commit)
        return Task(file, key, part_bytes, new)

    def _abort_stale(self, noted: set[tuple[str, str]], tasks: list[Task], notes: Notes) -> None:
        """Ends uploads below the prefix that no task goes on with: of other revisions, other part sizes, whole files, or nobody."""
        store, prefix = self._store, self._order.prefix
        going_on = {task.upload for task in tasks}
        notes.uploads = {path: upload for path, upload in notes.uploads.items() if upload.upload in going_on}
        for key, upload in sorted(store.all_uploads(prefix, {prefix + path for path in notes.previous}) | noted):
            if key.startswith(prefix) and upload not in going_on:
                store.abort(key, upload)
                say(f"ended an unfinished upload of {key} that nobody will go on with")

    def _finish(self, manifest: Manifest, notes: Notes) -> None:
        """Removes what an older manifest listed and this one does not, looks once more, and writes the manifest."""
        store, prefix = self._store, self._order.prefix
        wanted = {file.path for file in manifest.files}
        objects = store.objects(prefix)
        for key in sorted({prefix + path for path in notes.previous - wanted} & set(objects)):
            store.delete(key)
            del objects[key]
            say(f"removed {key}, which belonged to an earlier revision")
        problems = manifest.problems(objects)
        if problems:
            raise Failure(f"{self._order.place} changed while it was written: {problems[0]}; run again")
        warn_of_strangers(manifest, objects)
        if self._stop.is_set():
            raise Stopped
        store.put(manifest_key(prefix), manifest.to_json())
        store.delete(notes.key)


def main(environment: Mapping[str, str] = os.environ) -> int:
    stop = Stop()
    signal.signal(
        signal.SIGTERM, lambda *_: stop.because(Interrupted("told to stop (SIGTERM); the next run goes on where this one was"))
    )
    # By 1 the Job has failed for good, by any other it starts another pod (manifests/jobs.py).
    code = 1
    try:
        trust_extra_authority(environment)
        order, limits = Order.from_environment(environment), Limits.from_environment(environment)
        store = Store(order.bucket, limits, stop)
        mode = environment.get("WEIGHTS_MODE") or "seed"
        if mode == "seed":
            seed(order, store, limits, environment, stop)
        elif mode == "verify":
            problems = verify(store, order.prefix, stop)
            for problem in problems:
                say(problem)
            if problems:
                raise Failure(f"{order.place} has {len(problems)} problems, such as: {problems[0]}")
            say(f"{order.place} is whole")
        else:
            raise Failure(f"WEIGHTS_MODE {mode!r} is unknown: use seed or verify")
        return 0
    except (Failure, Untrusted, Stopped) as ended:
        # The first reason counts: what fails after it fails because of it.
        reason = stop.reason or ended
        sentence = f"seeding failed: {str(reason) or 'stopped'}"
        if isinstance(reason, Interrupted):
            code = 128 + signal.SIGTERM
    except Exception as error:  # the last line must name the reason, whatever it is
        sentence = f"seeding failed: {type(error).__name__}: {error}"
    say_why(sentence)
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Readers that wait for a stalled peer are daemons; the usual way out may wait for their locks.
    os._exit(code)
