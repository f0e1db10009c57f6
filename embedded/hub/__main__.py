"""`python -m embedded.hub --home DIR --listen 127.x.y.z:port`: serves the checkpoints until SIGTERM."""

from __future__ import annotations

import argparse
import ipaddress
import os
import signal
import sys
import threading
from pathlib import Path

from embedded.hub.checkpoints import CHECKPOINTS
from embedded.hub.repository import prepare, with_branch
from embedded.hub.server import HubContent, HubServer
from mistral_on_l4.config.local_engine import REVISION


def _loopback(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    try:
        if ipaddress.IPv4Address(host).is_loopback and 0 <= int(port) <= 65535:
            return host, int(port)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a loopback address with a port, such as 127.64.0.5:8900")


def main() -> int:
    parser = argparse.ArgumentParser(prog="embedded.hub", description="A local hub with small generated checkpoints.")
    parser.add_argument("--home", type=Path, required=True, help="folder of the local stack; files are kept in its hub/")
    parser.add_argument("--listen", type=_loopback, required=True, metavar="127.X.Y.Z:PORT")
    parser.add_argument("--url-seconds", type=float, default=3600.0, help="how long a storage URL is valid (default 3600)")
    parser.add_argument("--small-models", type=Path, help=f"folder with real checkpoints, one per precision: branch {REVISION}")
    arguments = parser.parse_args()
    root = arguments.home.resolve() / "hub"
    repositories = prepare(root, CHECKPOINTS)
    for checkpoint in CHECKPOINTS if arguments.small_models else ():
        folder = arguments.small_models / checkpoint.precision
        repositories[checkpoint.repository] = with_branch(root, repositories[checkpoint.repository], REVISION, folder)
    token = os.environ.get("MISTRAL_ON_L4_HUB_TOKEN")
    content = HubContent(repositories, {token: frozenset(repositories)} if token else {})
    try:
        server = HubServer(arguments.listen, content, url_seconds=arguments.url_seconds)
    except OSError as error:
        print(f"the hub cannot listen on {arguments.listen[0]}:{arguments.listen[1]}: {error.strerror}", file=sys.stderr)
        return 1
    # shutdown() waits for serve_forever, which runs in this very thread: it must be called from another.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    for repository in repositories.values():
        for commit in (repository, *repository.branches):
            print(f"{commit.id} at {commit.commit} ({', '.join(commit.refs)})", flush=True)
    print(f"listening on {server.url}", flush=True)
    with server:
        server.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
