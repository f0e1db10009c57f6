"""The page's server: who may call it, and what it hands on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from mistral_on_l4.cluster.chat import Answer, ChatError
from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.web import app as web
from mistral_on_l4.web.app import Question, Source, create_app
from mistral_on_l4.web.guard import Guard

PORT = 8765
ORIGIN = f"http://127.0.0.1:{PORT}"
KEY = "the-stacks-key"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A browser that has opened the printed address; `whole` answers, `broken` breaks off."""

    async def converse(_client: Any, name: str, messages: Any, most: int) -> AsyncIterator[Answer]:
        yield Answer("One ", 10.0, None, 1, None, 0.01)
        if name == "broken":
            raise ChatError("broken went away", Answer("One ", 10.0, None, 1, None, 0.01))
        await asyncio.sleep(0)
        yield Answer(f"One {messages[0]['content']}", 10.0, 5.0, 2, 7, 0.02, "stop")

    async def warm_up() -> None: ...

    class NoClient:
        async def close(self) -> None: ...

    monkeypatch.setattr(web, "converse", converse)
    monkeypatch.setattr(web, "warm_up", warm_up)
    monkeypatch.setattr(web, "new_client", lambda *_: NoClient())
    forgotten: list[str] = []

    def dead() -> Any:
        raise ApiError(0, "Unreachable", "the Kubernetes API does not answer")

    source = Source(
        lambda: {"stack": "local"}, dead, lambda name: f"http://{name}", forgotten.append, KEY, {"whole": 3.6, "broken": None}
    )
    guard = Guard(PORT, "word")
    with TestClient(create_app(source, guard), base_url=ORIGIN) as browser:
        browser.forgotten = forgotten  # type: ignore[attr-defined]
        assert browser.get("/?key=word").url.query == b""
        yield browser


def asked(client: Any, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/api/ask", json={"prompt": "Why?", "services": ["whole"], **body}, headers={"Origin": ORIGIN})
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_an_answer_comes_piece_by_piece_with_times_and_dollars(client: Any) -> None:
    first, last = asked(client)
    assert (first["text"], first["ttftMs"], first["done"]) == ("One ", 10.0, False)
    assert (last["text"], last["tokens"], last["done"]) == ("Why?", 2, True)
    assert last["usd"] == pytest.approx(3.6 * 0.02 / 3600)


def test_one_service_that_breaks_off_is_marked_and_looked_up_again_and_the_other_goes_on(client: Any) -> None:
    lines = asked(client, services=["broken", "whole"])
    assert [line["problem"] for line in lines if "problem" in line] == ["broken went away"]
    assert sum(line["done"] for line in lines) == 2
    assert client.forgotten == ["broken"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example:8765"},
        {"Host": f"127.0.0.1:{PORT + 1}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://127.0.0.1:{PORT}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Cookie": ""},
        {"Cookie": f"demo-web-{PORT}=another"},
    ],
)
@pytest.mark.parametrize("path", ["/api/stack", "/api/live", "/api/ask"])
def test_whoever_is_not_the_page_in_the_starters_browser_is_refused(client: Any, headers: dict[str, str], path: str) -> None:
    if "Cookie" in headers:
        client.cookies.clear()
    send = client.post if path == "/api/ask" else client.get
    assert send(path, headers=headers).status_code in (403, 421)


def test_a_form_of_another_site_cannot_ask_even_where_no_origin_is_sent(client: Any) -> None:
    body = '{"prompt": "Why?", "services": ["whole"]}'
    assert client.post("/api/ask", content=body, headers={"Content-Type": "text/plain"}).status_code == 415


def test_the_page_is_told_to_load_nothing_from_anywhere_else_and_refers_to_nothing_else(client: Any) -> None:
    size = 0
    for path in ("/", "/page.css", "/page.js"):
        response = client.get(path)
        assert response.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "http://" not in response.text
        assert "https://" not in response.text
        size += len(response.content)
    assert size < 200_000


def test_no_response_holds_the_services_key(client: Any) -> None:
    said = [client.get(path).text for path in ("/", "/page.js", "/api/stack", "/api/live")]
    said.append(json.dumps(asked(client, services=["whole", "broken"])))
    assert not [text for text in said if KEY in text]


def test_a_cluster_that_is_away_is_a_sentence_and_no_traceback(client: Any) -> None:
    response = client.get("/api/live")
    assert (response.status_code, response.json()) == (503, {"problem": "the Kubernetes API does not answer"})


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": "x" * 70_000}, "at most"),
        ({"prompt": "x", "services": ["nope"]}, "no service 'nope'; the services are broken, whole"),
        ({"prompt": "x", "services": ["whole"], "maxTokens": True}, "maxTokens"),
        ({"prompt": "x", "services": []}, "name the services"),
        ([], "the prompt is empty"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_with_its_reason(body: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Question.read(body, {"whole", "broken"})
