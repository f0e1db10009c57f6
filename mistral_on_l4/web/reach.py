"""Addresses of a stack's services for as long as the page is open, also when a forwarded port dies with its pod."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from mistral_on_l4.cluster.client import ApiError
from mistral_on_l4.cluster.connection import Connection, NoConnection


class Reach:
    """Opens what leads to a service when it is first asked for, and again after `forget`. Safe to share between threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: dict[str, tuple[str, ExitStack]] = {}
        self._lock = threading.Lock()

    def url(self, service: str) -> str:
        """Base URL of a service. Raises NoConnection, ApiError."""
        with self._lock:
            if service not in self._open:
                stack = ExitStack()
                namespace = self._connection.settings.namespaces.services
                self._open[service] = stack.enter_context(self._connection.service(f"{service}-predictor", namespace)), stack
            return self._open[service][0]

    def urls(self, services: list[str]) -> dict[str, str]:
        """Of those that can be reached."""
        found = {}
        for service in services:
            with suppress(NoConnection, ApiError):
                found[service] = self.url(service)
        return found

    def forget(self, service: str) -> None:
        """The service did not answer where it was."""
        with self._lock:
            if service in self._open:
                self._open.pop(service)[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for service in list(self._open):
            self.forget(service)
