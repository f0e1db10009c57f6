"""Refusals, in the registry's words and status codes."""

from __future__ import annotations

from http import HTTPStatus


class Problem(Exception):
    """A request that is refused. status: HTTP status; message: goes to the client as {"code", "message"}."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def body(self) -> dict[str, str]:
        # The server gives a missing field status 422 and still calls it a bad request.
        named = HTTPStatus.BAD_REQUEST if self.status is HTTPStatus.UNPROCESSABLE_ENTITY else self.status
        return {"code": named.phrase, "message": self.message}


def bad_request(message: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, message)


def not_found(message: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, message)


def conflict(message: str) -> Problem:
    return Problem(HTTPStatus.CONFLICT, message)


def not_implemented(message: str) -> Problem:
    return Problem(HTTPStatus.NOT_IMPLEMENTED, message)
