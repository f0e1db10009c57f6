"""Runs as `docker-entrypoint.sh [postgres ARGS]`: makes the database on first start, then becomes the server.

What the image's own script does with POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB and PGDATA (https://hub.docker.com/_/postgres),
except that a first start which is cut off leaves nothing behind that a second one would refuse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DEFAULT_DATA = "/var/lib/postgresql/data"
_SOCKETS = "/var/run/postgresql"
_UNSUPPORTED = ("POSTGRES_INITDB_ARGS", "POSTGRES_INITDB_WALDIR", "POSTGRES_HOST_AUTH_METHOD")


class Refused(Exception):
    """What the image, or PostgreSQL, would not start with. One line."""


@dataclass(frozen=True)
class Options:
    """password: None once the database exists; arguments: the server's own."""

    user: str
    database: str
    password: str | None
    data: Path
    arguments: tuple[str, ...]


def read(words: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Raises Refused, never naming the password."""
    arguments = list(words)
    if arguments[:1] == ["postgres"]:
        arguments.pop(0)
    elif arguments and not arguments[0].startswith("-"):
        raise Refused(f"this stand-in starts `postgres` only, not {arguments[0]!r}")
    for variable in _UNSUPPORTED:
        if environment.get(variable):
            raise Refused(f"{variable} is not supported by the stand-in")
    password = environment.get("POSTGRES_PASSWORD")
    if file := environment.get("POSTGRES_PASSWORD_FILE"):
        if password:
            raise Refused("both POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)")
        try:
            password = Path(file).read_text().rstrip("\n")
        except OSError as error:
            raise Refused(f"POSTGRES_PASSWORD_FILE={file}: {error.strerror}") from error
    user = environment.get("POSTGRES_USER") or "postgres"
    data = Path(environment.get("PGDATA") or _DEFAULT_DATA)
    return Options(user, environment.get("POSTGRES_DB") or user, password or None, data, tuple(arguments))


def initialize(options: Options) -> None:
    """Makes the database beside its place and moves it there when it is whole. Raises Refused."""
    if not options.password:
        raise Refused("Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD")
    half = options.data.with_name(f".{options.data.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    try:
        options.data.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=options.data.parent, prefix=".password.") as file:
            file.write(options.password + "\n")
            file.flush()
            words = ["initdb", f"--username={options.user}", f"--pwfile={file.name}", "--encoding=UTF8", "--no-locale"]
            _run([*words, "--auth-local=trust", "--auth-host=scram-sha-256", f"--pgdata={half}"])
        with (half / "pg_hba.conf").open("a") as hosts:
            hosts.write("\nhost all all all scram-sha-256\n")
        if options.database != "postgres":
            name = options.database.replace('"', '""')
            _run(["postgres", "--single", "-D", str(half), "postgres"], f'CREATE DATABASE "{name}";\n')
        if options.data.is_dir():
            options.data.rmdir()  # an empty mount point is the image's own case
        half.rename(options.data)
    except OSError as error:
        raise Refused(f"{options.data}: {error.strerror}") from error


def _run(command: list[str], said: str = "") -> None:
    done = subprocess.run(command, input=said, text=True, capture_output=True, check=False)
    if done.returncode or "ERROR:" in done.stderr:
        raise Refused((done.stderr.strip().splitlines() or [f"{command[0]} failed with exit status {done.returncode}"])[-1])


def log(line: str) -> None:
    print(f"postgres (local): {line}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        options = read(sys.argv[1:], os.environ)
        if os.geteuid() == 0:
            raise Refused('"root" execution of the PostgreSQL server is not permitted: set runAsUser (70 or 999 in the images)')
        version = subprocess.run(["postgres", "--version"], text=True, capture_output=True, check=True).stdout.strip()
        log(f"{version} of this machine")
        if not (options.data / "PG_VERSION").is_file():
            initialize(options)
            log(f"made database {options.database}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("POSTGRES_")}
        sockets = _SOCKETS if os.access(_SOCKETS, os.W_OK) else str(options.data)
        command = ["postgres", "-D", str(options.data), "-c", "listen_addresses=*", "-c", f"unix_socket_directories={sockets}"]
        os.execvpe("postgres", [*command, *options.arguments], kept)
    except Refused as refused:
        log(f"error: {refused}")
    except (OSError, subprocess.SubprocessError) as error:
        log(f"error: PostgreSQL does not run here: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
