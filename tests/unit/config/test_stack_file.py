"""What of a stack file is read, and what is refused with the line to change; beside Pulumi's own reader in tests/embedded/config."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_on_l4.config import stack_file
from mistral_on_l4.config.problems import SettingsError
from mistral_on_l4.config.settings import load_stack_file
from mistral_on_l4.config.stack_file import parse_stack_file


def config(text: str | bytes) -> dict[str, Any]:
    return parse_stack_file(text if isinstance(text, bytes) else text.encode(), "Pulumi.x.yaml").config


def refusal(text: str | bytes) -> str:
    with pytest.raises(SettingsError) as refused:
        config(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("off", "off"),
        ("yes", "yes"),
        ("True", "true"),
        ("~", ""),
        ("1.30", "1.3"),
        ("0123", "83"),
        ("08", "8"),
        ("020222070707", "2185785799"),
        ("2027-01-31", "2027-01-31 00:00:00 +0000 UTC"),
        ("2027-02-30", "2027-02-30"),
        ("2027-01-31T10:00:00+01:00", "2027-01-31 10:00:00 +0100 +0100"),
        ("12:30:00", "12:30:00"),
        ("1e21", "1e+21"),
        ("'0123'", "0123"),
    ],
)
def test_a_plain_value_is_the_text_that_pulumi_hands_to_a_program(written: str, value: str) -> None:
    assert config(f"config:\n  mistral-on-l4:a: {written}\n") == {"mistral-on-l4:a": value}


def test_a_key_without_a_namespace_is_the_projects() -> None:
    assert config("config: {pools: {start: after-seed}, 'aws:region': x}") == {
        "mistral-on-l4:pools": {"start": "after-seed"},
        "aws:region": "x",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config:\n  a: 1\n  a: 2\n", "line 3: the key 'a' is already in line 2, and Pulumi refuses it twice"),
        ("config:\n  a: 1\n  mistral-on-l4:a: 2\n", "'a' and 'mistral-on-l4:a' are one key, and Pulumi takes either"),
        ("config: {a: 1}\n---\nconfig: {a: 2}\n", "line 3 begins a second document, and Pulumi reads the first alone"),
        ("environment: [prod]\n", "environment: names Pulumi ESC environments, whose values are not read here"),
        ("config: {a: {1.5: x}}\n", "line 1: a key is no text: write it in quotes"),
        ("config: {a: !!int '1'}\n", "line 1 has the tag tag:yaml.org,2002:int: leave it out, or write the value in quotes"),
        ("config: {a: .inf}\n", ".inf is no number that a program could be given: write it in quotes"),
        ("config: {a: *b}\n", "no anchor 'b' is above"),
        ("config: {a: &b [*b]}\n", "the anchor 'b' contains itself"),
        ("config: {a: 1\n", "is not YAML: line 2, column 1: "),
        ("config: a\n", "holds no keys under 'config:', but 'a'"),
        ("- a\n", "holds no keys under 'config:'"),
        (b"config: {a: \xe9}\n", "is not text in UTF-8 (byte 12)"),
    ],
)
def test_what_pulumi_refuses_or_cannot_mean_is_refused_with_its_line(text: str | bytes, says: str) -> None:
    assert says in refusal(text)


def test_a_bomb_of_aliases_and_a_file_of_endless_values_or_depth_end_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = "".join(f"  b{depth}: &b{depth} [{','.join([f'*b{depth - 1}'] * 10)}]\n" for depth in range(1, 12))
    assert "which Pulumi refuses as excessive" in refusal(f"config:\n  b0: &b0 [x]\n{levels}")
    monkeypatch.setattr(stack_file, "MOST_VALUES", 1000)
    assert "holds more than 1,000 values" in refusal(f"config:\n  a: [{'1,' * 1000}]\n")
    assert "nest" in refusal("config: {a: " + "[" * 5000)


def test_five_mebibytes_of_one_value_are_read_whole() -> None:
    assert len(config(f"config:\n  extraCa: '{'y' * (5 * 2**20)}'\n")["mistral-on-l4:extraCa"]) == 5 * 2**20


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cluster: {version: 1.30}", "cluster.version: is a number without quotes, 1.3: write it in quotes"),
        ("registry: {owner: 020222070707}", "registry.owner: is a number without quotes, 2185785799: write it in quotes"),
        ("tags: {expires: 2027-01-31}", "write it in quotes"),
    ],
)
def test_a_value_that_lost_its_spelling_says_that_it_wants_quotes(line: str, says: str, tmp_path: Any) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text(f"config:\n  platform: local\n  {line}\n")
    with pytest.raises(SettingsError) as refused:
        load_stack_file("x", tmp_path)
    assert says in str(refused.value)


def test_off_without_quotes_is_off(tmp_path: Any) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  platform: local\n  services: {mistral-24b-fp8: {cpuOffload: off}}\n")
    services = load_stack_file("x", tmp_path).services
    assert [service.cpu_offload for service in services if service.name == "mistral-24b-fp8"] == ["off"]
