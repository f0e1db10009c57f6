"""Proves again what a manifest says of a prefix; changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from mistral_on_l4.jobs.weights_files import HubFile
from mistral_on_l4.jobs.weights_limits import Stop
from mistral_on_l4.jobs.weights_record import SeededFile, read_manifest
from mistral_on_l4.jobs.weights_store import Store
from mistral_on_l4.jobs.weights_transfer import read_back

_READERS = 8


def verify(store: Store, prefix: str, stop: Stop, content: bool = True) -> list[str]:
    """What is not as the manifest says, [] if all is. content: read every byte back, not only the listing. Raises Failure."""
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return ["has no manifest: it was never finished"]
    objects = store.objects(prefix)
    problems = manifest.problems(objects)
    problems += [f"{key.removeprefix(prefix)} is no part of the checkpoint" for key in manifest.strangers(objects)]
    if not content:
        return problems

    def check(file: SeededFile) -> str | None:
        stored = objects.get(prefix + file.path)
        if stored is None or stored.size != file.size:
            return None  # said already
        back = read_back(store, HubFile(file.path, file.size, file.sha256, None), stored, stop)
        return None if isinstance(back, SeededFile) else f"{file.path}: {back.replace('the hub promised', 'the manifest says')}"

    with ThreadPoolExecutor(_READERS) as pool:
        return problems + [problem for problem in pool.map(check, manifest.files) if problem]
