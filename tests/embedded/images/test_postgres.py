"""The installed PostgreSQL, started as the image's entrypoint would start its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.home import ClusterInfo
from embedded.images.table import NoProgram, program_for

pytestmark = pytest.mark.embedded

PORT = 5432
PASSWORD = 'it\'s "secret" & long'


@pytest.fixture
def database(pod: Any, images: Path, image_environment: dict[str, str]) -> Callable[..., Any]:
    """Starts it as user 70, which the image's /etc/passwd knows and this machine's need not."""
    cluster = ClusterInfo("127.64.0.0/16", "", 1, "", "", "", False, 8000, {})
    try:
        path = (
            program_for("postgres:16-alpine", cluster).env["PATH"].replace("/opt/mistral-on-l4/bin", str(images / "postgres/bin"))
        )
    except NoProgram as missing:
        pytest.skip(str(missing))
    if not shutil.which("psql"):
        pytest.skip("psql is not installed here")

    def start(**changed: str) -> Any:
        environment = {
            **image_environment,
            "PATH": path,
            "POSTGRES_USER": "model_registry",
            "POSTGRES_DB": "model_registry",
            "POSTGRES_PASSWORD": PASSWORD,
            "PGDATA": str(pod.folder / "data" / "pgdata"),
            **changed,
        }
        script = f"mount --bind {images}/postgres/passwd /etc/passwd && exec unshare -U --map-user=70 --map-group=70 docker-entrypoint.sh"
        return pod.start(["unshare", "-m", "/bin/sh", "-c", script], environment, "postgres")

    return start


def query(pod: Any, password: str, text: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PGPASSWORD": password}
    command = ["psql", "-h", "127.0.0.1", "-U", "model_registry", "-d", "model_registry", "-tAc", text]
    return pod.run(command, environment)  # type: ignore[no-any-return]


def test_the_database_is_made_once_and_opens_to_its_password_only(
    pod: Any, database: Callable[..., Any], await_condition: Callable[..., None]
) -> None:
    first = database()
    await_condition(lambda: pod.listening(PORT) or first.process.poll() is not None, 60, "PostgreSQL listening")
    assert pod.listening(PORT), first.text()
    await_condition(lambda: query(pod, PASSWORD, "create table kept (id int)").returncode == 0, 60, "an answer")
    assert "password authentication failed" in query(pod, "wrong", "select 1").stderr
    assert PASSWORD not in first.text()
    first.process.terminate()
    assert first.wait() == 0
    second = database(POSTGRES_PASSWORD="another")
    await_condition(lambda: pod.listening(PORT) or second.process.poll() is not None, 60, "PostgreSQL listening")
    await_condition(lambda: query(pod, PASSWORD, "select count(*) from kept").stdout.strip() == "0", 60, "the kept table")


def test_a_first_start_that_was_cut_off_does_not_hinder_the_next(
    pod: Any, database: Callable[..., Any], await_condition: Callable[..., None]
) -> None:
    half = pod.folder / "data" / ".pgdata.half"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    started = database()
    await_condition(lambda: pod.listening(PORT) or started.process.poll() is not None, 60, "PostgreSQL listening")
    assert pod.listening(PORT), started.text()
    assert not half.exists()


def test_without_a_password_it_ends(database: Callable[..., Any]) -> None:
    started = database(POSTGRES_PASSWORD="")
    assert started.wait() == 1
    assert "superuser password is not specified" in started.text()
