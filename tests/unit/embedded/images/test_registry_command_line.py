"""How the stand-in starts: the real server's flags and variables, and what it refuses."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from embedded.images.model_registry.__main__ import Refused, await_database, database_address, parse, run

DEPLOYED = [
    "proxy",
    "--hostname=0.0.0.0",
    "--port=8080",
    "--datastore-type=embedmd",
    "--embedmd-database-type=postgres",
]


def test_the_arguments_of_the_deployment_are_understood() -> None:
    options = parse(DEPLOYED, {})
    assert (options.hostname, options.port, options.database, options.ignored) == ("0.0.0.0", 8080, None, ())


def test_a_flag_beats_its_variable_and_a_variable_beats_the_default() -> None:
    environment = {"MR_PORT": "9000", "MR_HOSTNAME": "127.0.0.1", "MR_EMBEDMD_DATABASE_TYPE": "postgres"}
    options = parse(["proxy", "-p", "9001"], environment)
    assert (options.hostname, options.port) == ("127.0.0.1", 9001)


def test_glog_flags_are_taken_and_tls_flags_are_said_to_have_no_effect() -> None:
    options = parse(["proxy", "--v=2", "--logtostderr=true", "--embedmd-database-ssl-ca=/ca.crt"], {})
    assert options.ignored == ("--embedmd-database-ssl-ca",)


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        ([], {}, "model-registry proxy"),
        (["migrate"], {}, "migrate"),
        ([*DEPLOYED, "--cache=true"], {}, "unknown flag: --cache"),
        ([*DEPLOYED, "--embedmd-database"], {}, "unknown flag: --embedmd-database"),
        ([*DEPLOYED, "stray"], {}, 'unknown command "stray"'),
        ([*DEPLOYED, "--config=/etc/mr.yaml"], {}, "no config file"),
        (["proxy", "--datastore-type=mlmd"], {}, "mlmd"),
        (["proxy"], {"MR_EMBEDMD_DATABASE_TYPE": "sqlite"}, "sqlite"),
        (["proxy", "--port=http"], {}, "http"),
        (["proxy", "--embedmd-database-dsn=nowhere"], {}, "names no host"),
    ],
)
def test_what_the_server_would_not_start_with_is_refused(arguments: list[str], environment: dict[str, str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse(arguments, environment)


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("", None),
        ("postgresql://user:p%40ss@db.ns.svc:5433/registry?sslmode=disable", ("db.ns.svc", 5433)),
        ("postgres://user@db/registry", ("db", 5432)),
        ("host=postgres port=5432 user=root password=x dbname=mr sslmode=disable", ("postgres", 5432)),
        ("root:demo@tcp(mysql:3307)/model_registry?charset=utf8mb4", ("mysql", 3307)),
        ("root:demo@tcp(mysql)/model_registry", ("mysql", 3306)),
    ],
)
def test_the_database_is_found_in_every_form_of_a_dsn(dsn: str, address: tuple[str, int] | None) -> None:
    assert database_address(dsn) == address


def test_a_refused_dsn_is_not_repeated_since_it_holds_a_password() -> None:
    with pytest.raises(Refused) as refused:
        database_address("user:hunter2")
    assert "hunter2" not in str(refused.value)


def test_a_database_that_never_answers_ends_the_start_with_its_address() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", unused.getsockname()[1])
        with pytest.raises(Refused, match=f"127.0.0.1:{address[1]}"):
            await_database(address, threading.Event(), deadline_seconds=0)


def test_a_database_that_answers_is_waited_for_no_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await_database(("127.0.0.1", listening.getsockname()[1]), threading.Event(), deadline_seconds=10)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(Refused, match=f"127.0.0.1:{port}"):
            run(parse(["proxy", "--hostname=127.0.0.1", f"--port={port}"], {}), {})


def test_the_image_answers_to_the_published_references_and_its_program_can_be_run() -> None:
    from embedded.images import model_registry

    program = Path(model_registry.__file__).parent / "bin" / "model-registry"
    assert program.stat().st_mode & 0o111
