"""Runs as `minio server /data --address :9000`: checks what MinIO would check, then becomes versitygw.

Users and their secrets are kept below the data folder, hidden from S3, for their owner alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GATEWAY = "/opt/mistral-on-l4/versitygw"
GATEWAY_VARIABLE = "MISTRAL_ON_L4_VERSITYGW"
HEALTH_PATH = "/minio/health/live"
# MinIO keeps its own things in a folder of this name too; versitygw lists no folder whose name is no bucket name.
_HIDDEN = ".minio.sys"
# Least lengths that MinIO asks for (https://min.io/docs/minio/linux/reference/minio-server/settings/root-credentials.html).
_LEAST_USER, _LEAST_PASSWORD = 3, 8
_WITH_VALUE = ("--address", "--console-address", "--certs-dir", "-S")
_WITHOUT = ("--quiet", "--anonymous", "--json", "--no-compat")
# What else MinIO reads that has no meaning here, because the part it sets does not exist: no console, no updates.
_HARMLESS = ("MINIO_BROWSER", "MINIO_UPDATE", "MINIO_CI_CD", "MINIO_PROMETHEUS_AUTH_TYPE")


class Refused(Exception):
    """A command line that MinIO would refuse, or that this stand-in cannot honour. One line."""


@dataclass(frozen=True)
class Options:
    """data: absolute folder; host: "" for every address; certificates: folder with public.crt and private.key, or None."""

    data: Path
    host: str
    port: int
    certificates: Path | None = None
    no_effect: tuple[str, ...] = ()


def parse(arguments: Sequence[str]) -> Options:
    """Reads `server [FLAGS] DIR`; flags may stand anywhere, as `--flag value` or `--flag=value`. Raises Refused."""
    words = list(arguments)
    if words[:1] == ["minio"]:
        words.pop(0)
    if words[:1] != ["server"]:
        raise Refused(f"this stand-in runs `minio server DIR`, not {' '.join(words[:1]) or 'no command'!r}")
    values: dict[str, str] = {}
    folders: list[str] = []
    no_effect: list[str] = []
    words.pop(0)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            folders.append(word)
        elif flag in _WITH_VALUE:
            if not equals and not words:
                raise Refused(f"flag needs an argument: {flag}")
            values["--certs-dir" if flag == "-S" else flag] = value if equals else words.pop(0)
        elif flag in _WITHOUT:
            no_effect.append(flag)
        else:
            raise Refused(f"flag {flag} is not supported by the stand-in; it knows {', '.join(_WITH_VALUE + _WITHOUT)}")
    if len(folders) != 1 or "..." in folders[0] or "://" in folders[0]:
        raise Refused(f"this stand-in serves one folder, not {' '.join(folders) or 'none'!r}: give one, such as /data")
    if "--console-address" in values:
        no_effect.append("--console-address")
    host, port = _address(values.get("--address", ":9000"))
    certificates = values.get("--certs-dir")
    return Options(Path(folders[0]).absolute(), host, port, Path(certificates) if certificates else None, tuple(no_effect))


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:]*):(\d{1,5})", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise Refused(f"--address {text!r} is not [HOST]:PORT, such as :9000")
    return match[1], int(match[2])


def credentials(environment: Mapping[str, str]) -> tuple[str, str]:
    """The root user's name and password. Raises Refused, never naming a value."""
    for variable in ("MINIO_ROOT_USER_FILE", "MINIO_ROOT_PASSWORD_FILE", "MINIO_CONFIG_ENV_FILE"):
        if environment.get(variable):
            raise Refused(f"{variable} is not supported by the stand-in: set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD")
    user, password = environment.get("MINIO_ROOT_USER", ""), environment.get("MINIO_ROOT_PASSWORD", "")
    if not user or not password:
        raise Refused("MINIO_ROOT_USER and MINIO_ROOT_PASSWORD must both be set: the stand-in has no default credentials")
    if len(user) < _LEAST_USER or len(password) < _LEAST_PASSWORD:
        raise Refused(
            f"Invalid credentials: the user needs {_LEAST_USER} characters or more, the password {_LEAST_PASSWORD} or more"
        )
    return user, password


def command(options: Options, environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """(argv, environment) of versitygw. The root credentials are in the environment only. Raises Refused."""
    user, password = credentials(environment)
    # Every path is absolute, because versitygw changes into the data folder before it opens the others.
    argv = [
        environment.get(GATEWAY_VARIABLE) or GATEWAY,
        "--port",
        f"{options.host or '0.0.0.0'}:{options.port}",
        "--health",
        HEALTH_PATH,
        "--iam-dir",
        str(_iam(options.data)),
        "--region",
        environment.get("MINIO_REGION") or environment.get("MINIO_SITE_REGION") or "us-east-1",
        "--quiet",
    ]
    if options.certificates is not None:
        files = [(options.certificates / name).absolute() for name in ("public.crt", "private.key")]
        for file in files:
            if not file.is_file():
                raise Refused(f"--certs-dir: {file} does not exist")
        argv += ["--cert", str(files[0]), "--key", str(files[1])]
    argv += ["posix", str(options.data)]
    inherited = {name: value for name, value in environment.items() if not name.startswith(("MINIO_", "VGW_", "ROOT_"))}
    return argv, {**inherited, "ROOT_ACCESS_KEY": user, "ROOT_SECRET_KEY": password}


def _iam(data: Path) -> Path:
    return data / _HIDDEN / "iam"


def prepare(data: Path) -> None:
    """Makes the hidden folder for users. Raises Refused."""
    if not data.is_dir():
        raise Refused(f"{data} is not a folder: mount a volume there")
    try:
        for folder in (data / _HIDDEN, _iam(data)):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
    except OSError as error:
        raise Refused(f"unable to write to {data}: {error.strerror}") from error
    try:
        os.setxattr(_iam(data), "user.mistral-on-l4", b"1")
    except OSError as error:
        raise Refused(f"{data} keeps no extended attributes ({error.strerror}): object metadata have no place there") from error


def log(line: str) -> None:
    print(f"minio (stand-in): {line}", file=sys.stderr, flush=True)


def main() -> int:
    environment = dict(os.environ)
    try:
        options = parse(sys.argv[1:])
        argv, own = command(options, environment)
        prepare(options.data)
    except Refused as refused:
        log(f"error: {refused}")
        return 1
    log("STAND-IN for the MinIO server: versitygw, an S3 server on plain files; no console, no replication, no erasure coding")
    for name in options.no_effect + tuple(name for name in sorted(environment) if _without_effect(name)):
        log(f"{name} has no effect")
    log(f"S3 on port {options.port}, data in {options.data}, health at {HEALTH_PATH}")
    try:
        os.execve(argv[0], argv, own)  # signals reach the server itself
    except OSError as error:
        log(f"error: {argv[0]}: {error.strerror}")
        return 1


def _without_effect(name: str) -> bool:
    known = ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MINIO_REGION", "MINIO_SITE_REGION")
    # Kubernetes itself sets some of a Service called minio.
    return name.startswith("MINIO_") and not name.startswith(("MINIO_SERVICE_", "MINIO_PORT")) and name not in known + _HARMLESS


if __name__ == "__main__":
    sys.exit(main())
