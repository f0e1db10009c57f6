"""`python -m bench.weights.hub --root DIR --listen 127.x.y.z:port [--bytes-per-second N]`: the benchmark's hub, until SIGTERM.

The local stack's own hub with a limit per connection, as a real hub's storage has one; GET /bench/sent tells how many bytes of
content it sent.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from embedded.hub.repository import open_all
from embedded.hub.server import HubContent
from embedded.hub.trouble import TroubledHandler, TroubledHub


class _Handler(TroubledHandler):
    def before(self, path: str) -> bool:
        if path == "/bench/sent":
            self._json({"bytes": self.server.sent_bytes})
            return True
        return super().before(path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.weights.hub")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--bytes-per-second", type=float)
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    server = TroubledHub(
        (host, int(port)), HubContent(open_all(arguments.root)), bytes_per_second=arguments.bytes_per_second, quiet=True
    )
    server.RequestHandlerClass = _Handler
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(json.dumps({"url": server.url}), flush=True)
    with server:
        server.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
