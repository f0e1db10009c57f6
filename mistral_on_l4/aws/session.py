"""AWS clients of the commands and of the look into an adopted cluster, and AWS's errors in words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CONNECT_SECONDS, READ_SECONDS = 5, 20

_ADVICE = {
    "ExpiredToken": "the session has expired: `aws sso login`, or get new temporary credentials",
    "ExpiredTokenException": "the session has expired: `aws sso login`, or get new temporary credentials",
    "RequestExpired": "the session has expired, or this machine's clock is wrong",
    "InvalidClientTokenId": "AWS does not know these credentials: `aws sts get-caller-identity` shows which are used",
    "UnrecognizedClientException": "AWS does not know these credentials: `aws sts get-caller-identity` shows which are used",
    "AuthFailure": "AWS does not accept these credentials in this region: is the region enabled for the account?",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key: `aws configure` sets both",
    "OptInRequired": "the account has not subscribed to this service: open the AWS console once and finish the sign-up",
}
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"})


class AwsTrouble(Exception):
    """AWS did not answer as asked. One line: what is wrong and, where it is known, what to do (`fix`)."""

    def __init__(self, what: str, fix: str = "") -> None:
        self.what, self.fix = what, fix
        super().__init__(f"{what}: {fix}" if fix else what)


def session(region: str, profile: str | None = None) -> Any:
    """Credentials of the profile, or as every AWS tool finds them: environment, profile, SSO, instance. Raises AwsTrouble."""
    import boto3

    with in_words():
        return boto3.Session(region_name=region, profile_name=profile)


def client(of: Any, service: str, region: str | None = None) -> Any:
    """A client that tries again when AWS is busy, and gives up on a network that is not there within seconds."""
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"mode": "standard", "total_max_attempts": 6}
    )
    return of.client(service, region_name=region, config=config)


class Clients:
    """Clients of one region by service, each made once. boto3's sessions, unlike its clients, are not for several threads."""

    def __init__(self, region: str, profile: str | None = None) -> None:
        self._region, self._profile, self._lock = region, profile, threading.Lock()
        self._session: Any = None
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        with self._lock:
            if service not in self._made:
                self._session = self._session or session(self._region, self._profile)
                self._made[service] = client(self._session, service)
            return self._made[service]


@contextmanager
def in_words() -> Iterator[None]:
    """Turns botocore's errors into AwsTrouble."""
    from botocore import exceptions

    try:
        yield
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise AwsTrouble(
            "no AWS credentials", "`aws configure sso`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and its secret"
        ) from None
    except exceptions.ProfileNotFound as error:
        raise AwsTrouble(str(error), "`aws configure list-profiles` lists those there are") from None
    except (exceptions.TokenRetrievalError, exceptions.SSOError):
        raise AwsTrouble("the SSO session has expired", "`aws sso login`") from None
    except exceptions.ClientError as error:
        raise _trouble(error) from None
    except exceptions.EndpointConnectionError as error:
        raise AwsTrouble(str(error), "is the region spelled right, and does a proxy stand between (HTTPS_PROXY)?") from None
    except exceptions.BotoCoreError as error:
        raise AwsTrouble(str(error).splitlines()[0]) from None


def _trouble(error: Any) -> AwsTrouble:
    code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
    operation, said = error.operation_name, (said.splitlines() or [""])[0]
    if code in _ADVICE:
        what, _, fix = _ADVICE[code].partition(": ")
        return AwsTrouble(what, fix)
    if code in _DENIED:
        return AwsTrouble(f"not allowed to call {operation}", f"ask for the policy of docs/aws.md ({said or code})")
    if code in _THROTTLED:
        return AwsTrouble(f"AWS answers {operation} with {code} after six tries", "wait a minute and try again")
    return AwsTrouble(f"{operation}: {code}: {said}")
