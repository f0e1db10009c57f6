"""Stack files read here and by Pulumi's own command give the same values, or are refused by both."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from embedded.progress import PlainReport
from embedded.toolchain import ensure_tools
from mistral_on_l4.config.problems import SettingsError
from mistral_on_l4.config.stack_file import parse_stack_file

pytestmark = pytest.mark.embedded

FILES, KEYS = 200, 6
PLAIN = [
    "off",
    "on",
    "yes",
    "no",
    "y",
    "n",
    "true",
    "True",
    "TRUE",
    "false",
    "tRue",
    "~",
    "null",
    "Null",
    "2027-01-31",
    "2027-1-31",
    "2027-02-30",
    "2027-01-31T10:00:00Z",
    "2027-01-31t10:00:00.50+01:00",
    "2027-01-31T10:00:00",
    "0123",
    "08",
    "00",
    "0777",
    "0o17",
    "0o8",
    "0x1F",
    "0X1f",
    "0b11",
    "-0b11",
    "1.30",
    "1.0",
    "1e3",
    "1E3",
    ".5",
    "5.",
    "+.5",
    "+1",
    "-1",
    "-0",
    "1_000",
    "1_000.5",
    "1__0",
    "_1",
    "1.2.3",
    "1,000",
    "12:30",
    "190:20:30",
    "1e21",
    "1e20",
    "1e-7",
    "1e-6",
    "123456789.125",
    "1e",
    "0x",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1.36",
    "020222070707",
    "10.42.0.0/16",
    "l4-1gpu",
    "fp8",
    "200Gi",
    "a/",
    "--",
    ".",
    "=",
    "https://a.example:8443/x",
]
QUOTED = ("'off'", '"0123"', "'2027-01-31'", '""', "''", '"a\\tb\\u00e9"', "'it''s'")

Pulumi = Callable[[bytes], "dict[str, Any] | str"]


@pytest.fixture(scope="module")
def pulumi(tmp_path_factory: pytest.TempPathFactory) -> Pulumi:
    """`pulumi config --json` of a file in a project of this name: values by key, or its error."""
    tool = ensure_tools(["pulumi"], PlainReport())["pulumi"]
    folder = tmp_path_factory.mktemp("project")
    (folder / "Pulumi.yaml").write_text("name: mistral-on-l4\nruntime: python\n")
    environment = {
        **os.environ,
        "PULUMI_HOME": str(folder / "home"),
        "PULUMI_BACKEND_URL": folder.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "x",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(tool), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)

    made = run("stack", "init", "dev")
    assert made.returncode == 0, made.stderr

    def read(data: bytes) -> dict[str, Any] | str:
        file = folder / f"{random.getrandbits(64):x}.yaml"
        file.write_bytes(data)
        done = run("config", "--stack", "dev", "--json", "--config-file", str(file))
        if done.returncode:
            return done.stderr
        return {key: entry.get("objectValue", entry.get("value")) for key, entry in json.loads(done.stdout).items()}

    return read


def generated(chance: random.Random, depth: int = 0) -> str:
    """The text of a value in flow style; keys of maps are as various as values."""
    kind = chance.random()
    if depth == 3 or kind < (0.5 if depth == 0 else 0.7):
        return chance.choice(PLAIN + list(QUOTED) if depth == 0 else [text for text in PLAIN + list(QUOTED) if text != "1,000"])
    entries = [generated(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind < 0.8:
        return f"[{', '.join(entries)}]"
    return (
        "{"
        + ", ".join(
            f"{chance.choice(['off', 'version', '1', 'k k', 'true', '0x1F'])}{number}: {text}"
            for number, text in enumerate(entries)
        )
        + "}"
    )


def same(ours: Any, theirs: Any) -> bool:
    """Equal, but for what Pulumi's own listing cuts of integers that a float cannot hold."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, (int, float)) and not isinstance(ours, bool) and isinstance(theirs, (int, float)):
        return math.isclose(ours, theirs, rel_tol=1e-15)
    return type(ours) is type(theirs) and bool(ours == theirs)


def test_two_hundred_generated_files_are_read_as_pulumi_reads_them(pulumi: Pulumi) -> None:
    chance = random.Random(19)
    files = [[(f"k{number}", generated(chance)) for number in range(KEYS)] for _ in range(FILES)]
    # Pulumi takes a third of a second to start: it gets all of them in one file, each file's keys under a name of their own.
    lines = [
        f"  {'mistral-on-l4:' * (number % 2)}f{number}-{key}: {text}\n" for number, file in enumerate(files) for key, text in file
    ]
    theirs = pulumi(("config:\n" + "".join(lines)).encode())
    assert isinstance(theirs, dict), theirs
    different = []
    for number, file in enumerate(files):
        text = "config:\n" + "".join(f"  {'mistral-on-l4:' * (number % 2)}{key}: {value}\n" for key, value in file)
        ours = parse_stack_file(text.encode(), "Pulumi.x.yaml").config
        for key, value in file:
            mine, wanted = ours[f"mistral-on-l4:{key}"], theirs[f"mistral-on-l4:f{number}-{key}"]
            if not same(mine, wanted):
                different.append((value, mine, wanted))
    assert different == []


BOMB = "config:\n  a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"  {chr(98 + depth)}: &{chr(98 + depth)} [{','.join(['*' + chr(97 + depth)] * 10)}]\n" for depth in range(8)
)
REFUSED_BY_BOTH = {
    "a key twice": b"config: {'mistral-on-l4:pools': 1, 'mistral-on-l4:pools': 2}\n",
    "a nested key twice": b"config: {pools: {start: 1, start: 2}}\n",
    "config twice": b"config: {a: 1}\nconfig: {a: 2}\n",
    "three parts": b"config: {'a:b:c': 1}\n",
    "a number as key": b"config: {1: x}\n",
    "config is a list": b"config: [a]\n",
    "an environment": b"environment: [prod]\nconfig: {a: 1}\n",
    "an alias of nothing": b"config: {a: *x}\n",
    "an alias within itself": b"config: {a: &x [*x]}\n",
    "a bomb of aliases": BOMB.encode(),
    "a tab": b"config:\n\ta: 1\n",
    "an open bracket": b"config: {a: 1\n",
    "no number": b"config: {a: {b: .inf}}\n",
    "not UTF-8": b"config: {a: \xe9}\n",
}
READ_BY_BOTH = {
    "nothing": b"",
    "a comment": b"# x\n",
    "no values": b"config:\n",
    "an empty second document": b"config: {a: 1}\n---\n",
    "a byte order mark": b"\xef\xbb\xbfconfig: {a: off}\n",
    "the old namespace": b"config: {'mistral-on-l4:config:a': 1}\n",
    "anchors": b"config:\n  a: &x {b: 1, c: 2}\n  d: {<<: *x, b: 3}\n  e: [*x]\n",
    "blocks": b"config:\n  a: |\n    one\n    two\n  b: >-\n    one\n    two\n",
    "an encryption salt": b"secretsprovider: passphrase\nconfig: {a: 1}\n",
}


def test_what_pulumi_refuses_is_refused_and_what_it_takes_is_taken(pulumi: Pulumi) -> None:
    with ThreadPoolExecutor(2) as pool:
        refusals = dict(zip(REFUSED_BY_BOTH, pool.map(pulumi, REFUSED_BY_BOTH.values()), strict=True))
        readings = dict(zip(READ_BY_BOTH, pool.map(pulumi, READ_BY_BOTH.values()), strict=True))
    assert [name for name, theirs in refusals.items() if not isinstance(theirs, str)] == []
    for name, data in REFUSED_BY_BOTH.items():
        with pytest.raises(SettingsError):
            pytest.fail(f"{name}: {parse_stack_file(data, 'Pulumi.x.yaml')}")
    assert {name: parse_stack_file(data, "Pulumi.x.yaml").config for name, data in READ_BY_BOTH.items()} == readings
