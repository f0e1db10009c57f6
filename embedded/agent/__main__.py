"""`python -m embedded.agent --home DIR`: the node agent of one local cluster, until it is asked to end."""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from embedded.agent.agent import Agent
from embedded.home import LocalHome, NoCluster
from mistral_on_l4.cluster.client import ApiError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m embedded.agent", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the local stack")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # It logs every request.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    # One descriptor per connection and pod; the usual soft limit is 1024.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Threads are many and shallow.
    threading.stack_size(512 * 1024)
    os.umask(0o022)
    home = LocalHome(options.home.absolute())
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        agent = Agent(home, home.cluster())
        agent.start()
    except (NoCluster, ApiError, OSError, ValueError) as problem:
        print(f"agent: {problem}", file=sys.stderr)
        return 1
    ended.wait()
    agent.stop()
    logging.shutdown()
    # Watches and probes that still wait need not end first.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
