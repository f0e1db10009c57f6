"""The API server as a pod sees it: with its service account's token, by plain requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Seconds to connect, to answer.
TIMEOUT = (5.0, 10.0)

Json = dict[str, Any]
# (method, path, body) -> (status, document). Raises requests.RequestException, OSError.
Call = Callable[[str, str, Json | None], tuple[int, Json]]


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Call | None:
    """Calls the API server as the pod's service account; None outside a cluster."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").exists():
        return None
    base = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    session = requests.Session()
    session.trust_env = False  # a proxy for the hub is not one for the API server

    def call(method: str, path: str, body: Json | None) -> tuple[int, Json]:
        # The token is rotated, so it is read each time.
        token = (folder / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        answer = session.request(method, base + path, json=body, headers=headers, verify=str(folder / "ca.crt"), timeout=TIMEOUT)
        try:
            document = answer.json()
        except ValueError:
            document = {}
        return answer.status_code, document if isinstance(document, dict) else {}

    return call
