"""Whether the hub will hand the checkpoints out, asked in a preview: a seed Job would find out half an hour into an `up`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pulumi
import requests

from mistral_on_l4.config.names import PROJECT

_SECONDS = 5


def warn_of_unreadable(checkpoints: Sequence[tuple[str, str]], endpoint: str, token: str | None) -> None:
    """checkpoints: (repository, revision); token: what the seed Jobs will have. One request for each, in a preview alone."""
    if not checkpoints or not pulumi.runtime.is_dry_run():
        return
    with ThreadPoolExecutor(len(checkpoints)) as pool:
        for problem in pool.map(lambda asked: problem_of(asked[0], asked[1], endpoint, token), checkpoints):
            if problem:
                pulumi.log.warn(problem)


def problem_of(repository: str, revision: str, endpoint: str, token: str | None) -> str | None:
    """One line, or None if the hub hands out the file that every checkpoint has. The token goes into a header and nowhere else."""
    address = f"{endpoint.rstrip('/')}/{repository}/resolve/{quote(revision, safe='')}/config.json"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        # A file on the hub's storage is a redirection, which says all that is asked here.
        status = requests.head(address, headers=headers, timeout=_SECONDS, allow_redirects=False).status_code
    except requests.RequestException as error:
        return f"whether {endpoint} hands out {repository} could not be asked ({type(error).__name__}): `demo doctor` asks again"
    if status < 400:
        return None
    if status in (401, 403):
        has = "the token of hubToken may not read it" if token else "there is no hubToken"
        return (
            f"{repository} is gated or private, and {has}: its seed Job would fail; accept the licence at {endpoint}/{repository}, "
            f"then `pulumi config set --secret {PROJECT}:hubToken -s {pulumi.get_stack()}`"
        )
    if status == 404:
        return f"{endpoint} has no {repository} at revision {revision}, or not for this token: its seed Job would fail"
    return f"whether {endpoint} hands out {repository} could not be asked (HTTP {status}): `demo doctor` asks again"
