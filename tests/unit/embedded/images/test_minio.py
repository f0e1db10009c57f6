"""MinIO's command line, as it becomes versitygw's."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from embedded.images.minio.__main__ import HEALTH_PATH, Options, Refused, command, parse, prepare
from mistral_on_l4.manifests.object_store import stateful_set

ROOT = {"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "long-enough"}


def test_the_stacks_own_arguments_are_understood() -> None:
    spec = stateful_set("minio", "image", "claim", tls_secret="tls")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    assert parse(container["args"]) == Options(Path("/data"), "", 9000, Path("/certs"))


def test_the_stacks_own_probes_ask_where_the_stand_in_answers() -> None:
    spec = stateful_set("minio", "image", "claim")["spec"]
    container = spec["template"]["spec"]["containers"][0]
    paths = {container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {HEALTH_PATH}


def test_flags_may_stand_anywhere_and_carry_an_equals_sign() -> None:
    assert parse(["minio", "server", "--address=127.0.0.1:9001", "--quiet", "data"]) == Options(
        Path("data").absolute(), "127.0.0.1", 9001, no_effect=("--quiet",)
    )


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["gateway", "/data"], "not 'gateway'"),
        ([], "no command"),
        (["server"], "one folder"),
        (["server", "/a", "/b"], "one folder"),
        (["server", "/data{1...4}"], "one folder"),
        (["server", "http://a/data"], "one folder"),
        (["server", "/data", "--erasure", "x"], "--erasure is not supported"),
        (["server", "/data", "--address"], "needs an argument"),
        (["server", "/data", "--address", "9000"], "not [HOST]:PORT"),
        (["server", "/data", "--address", ":99999"], "not [HOST]:PORT"),
    ],
)
def test_what_the_stand_in_cannot_honour_is_refused(words: list[str], why: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(words)
    assert why in str(refused.value)


def test_root_credentials_are_in_the_environment_only() -> None:
    argv, environment = command(
        Options(Path("/data"), "", 9000), {**ROOT, "PATH": "/bin", "MINIO_BROWSER": "off", "VGW_DEBUG": "1"}
    )
    assert not {"root", "long-enough"} & set(argv)
    assert environment == {"PATH": "/bin", "ROOT_ACCESS_KEY": "root", "ROOT_SECRET_KEY": "long-enough"}
    assert argv[-2:] == ["posix", "/data"]
    assert "0.0.0.0:9000" in argv


@pytest.mark.parametrize("changed", [{"MINIO_ROOT_USER": ""}, {"MINIO_ROOT_PASSWORD": "short"}, {"MINIO_ROOT_USER_FILE": "/x"}])
def test_missing_short_or_filed_credentials_are_refused_without_naming_them(changed: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        command(Options(Path("/data"), "", 9000), ROOT | changed)
    assert "long-enough" not in str(refused.value)
    assert "'short'" not in str(refused.value)


def test_absent_certificates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"public\.crt does not exist"):
        command(Options(Path("/data"), "", 9000, tmp_path), ROOT)


def test_the_users_folder_is_for_the_server_alone(tmp_path: Path) -> None:
    prepare(tmp_path)
    prepare(tmp_path)
    assert stat.S_IMODE((tmp_path / ".minio.sys" / "iam").stat().st_mode) == 0o700
    with pytest.raises(Refused, match="mount a volume there"):
        prepare(tmp_path / "absent")
