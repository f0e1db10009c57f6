"""What the start of a local cluster leaves in its home, without a cluster: the program reads it and finds one."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from embedded.home import STORAGE_CLASS, ClusterInfo, LocalHome


def pretend_started(home: LocalHome, api_server_url: str) -> None:
    """Makes a home whose cluster is said to answer at `api_server_url`, http or https with a port."""
    port = urlsplit(api_server_url).port
    if port is None:
        raise ValueError(f"{api_server_url!r} names no port: give it as https://127.0.0.1:6443")
    home.make()
    home.record(
        ClusterInfo(
            service_cidr="127.64.0.0/16",
            api_server_url=api_server_url,
            api_server_port=port,
            hub_url="http://127.64.255.254:8900",
            hub_address="127.64.255.254:8900",
            storage_class=STORAGE_CLASS,
            privileged_ports=True,
            port_shift=0,
            tools={},
        )
    )
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "embedded",
        "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "admin"}}],
        "clusters": [{"name": "embedded", "cluster": {"server": api_server_url}}],
        "users": [{"name": "admin", "user": {}}],
    }
    home.kubeconfig.write_text(json.dumps(kubeconfig))
