"""Runs as `/model-registry proxy ...`: takes the real server's flags and MR_* variables, keeps its data in SQLite."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from embedded.images.model_registry.registry import Registry
from embedded.images.model_registry.server import RegistryServer, log
from embedded.images.model_registry.store import Store

DATABASE_VARIABLE = "MODEL_REGISTRY_STAND_IN_DB"
_DATABASE_DEADLINE_SECONDS = 300.0
_DRAIN_SECONDS = 10.0

# Flags of `model-registry proxy` 0.3 with their defaults (cmd/proxy.go there).
_FLAGS = {
    "hostname": "localhost",
    "port": "8080",
    "datastore-type": "embedmd",
    "embedmd-database-type": "mysql",
    "embedmd-database-dsn": "",
    "embedmd-database-ssl-cert": "",
    "embedmd-database-ssl-key": "",
    "embedmd-database-ssl-root-cert": "",
    "embedmd-database-ssl-ca": "",
    "embedmd-database-ssl-cipher": "",
    "embedmd-database-ssl-verify-server-cert": "false",
}
_LOG_FLAGS = ("v", "logtostderr", "alsologtostderr", "stderrthreshold", "vmodule", "log_dir", "log_backtrace_at")


class Refused(Exception):
    """Flags or variables that the server would not start with, or that this stand-in cannot honour. One line."""


@dataclass(frozen=True)
class Options:
    """hostname, port: where to listen; database: (host, port) in the DSN, or None; ignored: flags with no effect."""

    hostname: str
    port: int
    database: tuple[str, int] | None
    ignored: tuple[str, ...]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(message)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """Reads the command line as the real server does: flags, then MR_<FLAG> variables, defaults. Raises Refused."""
    if not arguments or arguments[0] != "proxy":
        raise Refused(f"this stand-in runs `model-registry proxy`, not {' '.join(arguments[:1]) or 'no command'!r}")
    parser = _Parser(add_help=False, allow_abbrev=False)
    for flag in _FLAGS:
        short = {"hostname": ["-n"], "port": ["-p"]}.get(flag, [])
        if flag.endswith("verify-server-cert"):
            parser.add_argument(f"--{flag}", dest=flag, nargs="?", const="true")
        else:
            parser.add_argument(f"--{flag}", *short, dest=flag)
    for flag in _LOG_FLAGS:
        parser.add_argument(f"--{flag}", dest=flag, nargs="?", const="true")
    given, unknown = parser.parse_known_args(list(arguments[1:]))
    for word in unknown:
        if word.split("=")[0] in ("--config", "-c"):
            raise Refused("this stand-in reads no config file: give flags or MR_* variables")
        raise Refused(f"unknown flag: {word.split('=')[0]}" if word.startswith("-") else f'unknown command "{word}"')
    values = {flag: _value(flag, vars(given)[flag], environment) for flag in _FLAGS}
    if values["datastore-type"] != "embedmd":
        raise Refused(f"unsupported datastore type {values['datastore-type']!r}: use embedmd")
    if values["embedmd-database-type"] not in ("mysql", "postgres"):
        raise Refused(f"unsupported database type {values['embedmd-database-type']!r}: use mysql or postgres")
    if not values["port"].isdigit() or not 0 <= int(values["port"]) <= 65535:
        raise Refused(f'invalid argument "{values["port"]}" for "-p, --port": use a port number')
    ignored = tuple(f"--{flag}" for flag in _FLAGS if "-ssl-" in flag and values[flag] not in ("", "false"))
    return Options(values["hostname"], int(values["port"]), database_address(values["embedmd-database-dsn"]), ignored)


def _value(flag: str, given: str | None, environment: Mapping[str, str]) -> str:
    if given is not None:
        return given
    return environment.get("MR_" + flag.upper().replace("-", "_"), _FLAGS[flag])


def database_address(dsn: str) -> tuple[str, int] | None:
    """(host, port) in a PostgreSQL URL, a PostgreSQL keyword list or a MySQL DSN; None if it is empty. Raises Refused.

    The DSN holds a password, so no error repeats it.
    """
    if not dsn:
        return None
    try:
        if "://" in dsn:
            url = urlsplit(dsn)
            if url.hostname:
                return url.hostname, url.port or 5432
        elif match := re.search(r"@tcp\(([^:)]+)(?::(\d+))?\)", dsn):
            return match[1], int(match[2] or 3306)
        else:
            words = dict(word.split("=", 1) for word in dsn.split())
            return words["host"], int(words.get("port", 5432))
    except (ValueError, KeyError):
        pass
    raise Refused("the database DSN names no host: use postgresql://USER:PASSWORD@HOST:5432/DATABASE")


def await_database(address: tuple[str, int], stop: threading.Event, deadline_seconds: float) -> None:
    """Waits until something accepts connections there. Raises Refused with the last reason."""
    deadline = time.monotonic() + deadline_seconds
    while not stop.is_set():
        try:
            with socket.create_connection(address, timeout=5):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Refused(f"error connecting to datastore: {address[0]}:{address[1]}: {error}") from error
        stop.wait(0.5)


def run(options: Options, environment: Mapping[str, str]) -> int:
    """Serves until SIGTERM or SIGINT. Returns the exit status."""
    try:
        server = RegistryServer(options.hostname, options.port)
    except OSError as error:
        raise Refused(f"error starting proxy server: {options.hostname}:{options.port}: {error.strerror or error}") from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    accepting = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    accepting.start()
    log("STAND-IN for the Kubeflow Model Registry server: its REST API, kept in SQLite")
    log(f"Proxy server started at {options.hostname}:{server.port}")
    for flag in options.ignored:
        log(f"{flag} has no effect: this stand-in opens no database connection")
    if options.database:
        host, port = options.database
        log(f"waiting for the database at {host}:{port}; it is only knocked at, no data go there")
        await_database(options.database, stop, _DATABASE_DEADLINE_SECONDS)
    with tempfile.TemporaryDirectory(prefix="model-registry-") as own_folder:
        file = _database_file(environment, own_folder)
        try:
            store = Store(file)
        except sqlite3.Error as error:
            raise Refused(f"error connecting to datastore: {file}: {error}") from error
        server.registry = Registry(store)
        log("EmbedMD service connected")
        stop.wait()
        server.shutdown()
        if not server.drain(_DRAIN_SECONDS):
            log("stopped with requests unanswered")
        server.server_close()
        store.close()
    return 0


def _database_file(environment: Mapping[str, str], own_folder: str) -> Path:
    named = environment.get(DATABASE_VARIABLE)
    if not named:
        log(f"{DATABASE_VARIABLE} is not set: the data end with this container")
        return Path(own_folder) / "registry.sqlite"
    path = Path(named)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise Refused(f"{DATABASE_VARIABLE}={named}: {path.parent} is not a folder that can be written: mount a volume there")
    log(f"data are kept in {path}")
    return path


def main() -> int:
    try:
        return run(parse(sys.argv[1:], os.environ), os.environ)
    except Refused as refused:
        log(f"error: {refused}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
