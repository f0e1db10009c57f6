"""A handful of fixed questions with answers that can be checked: whether a served model really answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import requests

from bench.contract.servers import KEY, MODEL, Server

# Question -> what a right answer holds. Chosen so that SmolLM2-135M knows them in all three precisions, at temperature 0.
QUESTIONS: Sequence[tuple[str, str]] = (
    ("What is the capital of France?", r"Paris"),
    ("What color is the sky on a clear day?", r"(?i)blue"),
    ("What is 2 + 2?", r"\b4\b"),
    ("How many days are in a week?", r"(?i)\b(7|seven)\b"),
)


def answered(server: Server) -> Iterator[tuple[str, bool]]:
    """(question, whether the answer is right)."""
    for question, right in QUESTIONS:
        yield question, re.search(right, ask(server, question)) is not None


def ask(server: Server, question: str) -> str:
    body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 24, "temperature": 0}
    headers = {"Authorization": f"Bearer {KEY}"}
    found = requests.post(f"{server.url}/v1/chat/completions", headers=headers, json=body, timeout=300).json()
    return str(found["choices"][0]["message"]["content"])
