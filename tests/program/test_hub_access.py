"""What a hub says to a preview, by a hub of the test's own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from components.hub_access import problem_of

TOKEN = "hf-not-a-real-token"


class Hub(http.server.BaseHTTPRequestHandler):
    """Open to all, behind a redirection, gated, and for one token."""

    def do_HEAD(self) -> None:
        owner = self.path.split("/")[1]
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        status = {"open": 200, "moved": 302, "gated": 200 if known else 401, "closed": 403, "busy": 503}.get(owner, 404)
        self.send_response(status)
        if status == 302:
            # Whoever follows it is refused.
            self.send_header("Location", "/closed/model/resolve/main/config.json")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("owner", "token", "says"),
    [
        ("open", None, None),
        ("moved", None, None),
        ("gated", TOKEN, None),
        ("gated", None, "is gated or private, and there is no hubToken: its seed Job would fail"),
        ("closed", TOKEN, "the token of hubToken may not read it"),
        ("nobody", None, "has no nobody/model at revision main"),
        ("busy", None, "could not be asked (HTTP 503)"),
    ],
)
def test_a_checkpoint_that_the_hub_would_not_hand_out_is_told_with_what_to_do(
    hub: str, owner: str, token: str | None, says: str | None
) -> None:
    found = problem_of(f"{owner}/model", "main", hub, token)
    if says is None:
        assert found is None
        return
    assert found is not None
    assert says in found
    assert TOKEN not in found


def test_a_hub_that_does_not_answer_is_said_to_be_unknown() -> None:
    found = problem_of("open/model", "main", "http://127.0.0.1:1", TOKEN)
    assert found is not None
    assert "could not be asked" in found
    assert TOKEN not in found
