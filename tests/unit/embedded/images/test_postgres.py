"""What the start of the local PostgreSQL takes from the image's variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.images.postgres.__main__ import Options, Refused, initialize, read


def test_the_images_variables_are_read_with_their_defaults() -> None:
    assert read([], {"POSTGRES_PASSWORD": "p"}) == Options("postgres", "postgres", "p", Path("/var/lib/postgresql/data"), ())
    environment = {"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p", "PGDATA": "/d"}
    assert read(["postgres", "-c", "x=1"], environment) == Options("u", "u", "p", Path("/d"), ("-c", "x=1"))


def test_the_password_may_lie_in_a_file_but_not_in_both(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("from-file\n")
    environment = {"POSTGRES_PASSWORD_FILE": str(tmp_path / "p")}
    assert read([], environment).password == "from-file"
    with pytest.raises(Refused, match="exclusive") as refused:
        read([], environment | {"POSTGRES_PASSWORD": "in-variable"})
    assert "in-variable" not in str(refused.value)
    with pytest.raises(Refused, match="No such file"):
        read([], {"POSTGRES_PASSWORD_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("words", "environment"), [(["bash"], {}), (["psql", "-c", "x"], {}), ([], {"POSTGRES_INITDB_ARGS": "--data-checksums"})]
)
def test_what_the_stand_in_does_not_do_is_refused(words: list[str], environment: dict[str, str]) -> None:
    with pytest.raises(Refused, match="stand-in"):
        read(words, environment)


def test_a_new_database_needs_a_password(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="superuser password is not specified"):
        initialize(read([], {"PGDATA": str(tmp_path / "data")}))
