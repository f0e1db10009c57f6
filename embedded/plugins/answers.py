"""How a provider answers the engine with an error, and reads which type a request is about. Import it after lean_sdk.prepare()."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from pulumi.runtime.proto import status_pb2


class DetailedStatus(grpc.Status):
    """A status with details, which the engine finds in the trailing metadata."""

    def __init__(self, message: str, detail: Any) -> None:
        status: Any = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message)
        status.details.add().Pack(detail)
        self.code = grpc.StatusCode.UNKNOWN
        self.details = message
        self.trailing_metadata = (("grpc-status-details-bin", status.SerializeToString()),)


def abort(context: Any, error: Exception) -> NoReturn:
    context.abort(grpc.StatusCode.UNKNOWN, str(error))
    raise AssertionError("abort raises")


def type_token(request: Any) -> str:
    """A resource's type token: that of the request, or the last one of its URN."""
    return str(request.type or request.urn.split("::")[2].rpartition("$")[2])
