"""What a stack would declare, recorded by running the program on mocks: no engine, no account, no cluster.

The answers that AWS and the local cluster would give to the program's questions are made up here and labelled so: an account with
four zones, and a cluster that was started. What the program declares does not depend on their details.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedded.home import CHECKOUT, HOME_VARIABLE, LocalHome
from policies.offline import Declared, Recording
from tests.support.account import OUTPUTS, account
from tests.support.cluster import pretend_started
from tests.support.engine import DRAWN, SECRET, SIGNATURE, Engine, Registered, run

# pulumi_policy's own mark of a value that only `up` knows.
UNKNOWN_MARK = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def record(stack: str, config: Mapping[str, str], engine: Engine | None = None) -> Recording:
    """Runs __main__.py with a configuration of full keys (`mistral-on-l4:platform`). Raises what the program raises.

    engine: with other answers than those of an account with four zones.
    """
    from components.platforms import local

    engine = engine or Engine(calls=account(), outputs=OUTPUTS)
    values = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("mistral-on-l4:")}
    if "aws:region" in config:
        values.setdefault("region", config["aws:region"])
    refuse, local._refuse_another_stack = local._refuse_another_stack, lambda *_: None
    try:
        with _a_started_cluster(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            run(_program, engine, stack, values, preview=True)
    finally:
        local._refuse_another_stack = refuse
    # The engine shows policies nothing of what is only read.
    resources = (declared(found) for found in engine.resources if found.token != "pulumi:pulumi:Stack" and not found.read)
    return Recording(stack, tuple(resources), dict(config), "the program on mocks")


def declared(found: Registered) -> Declared:
    """A registered resource as a policy is shown it: with the name that its provider draws, and its secrets marked."""
    inputs = _plain(dict(found.inputs), found.secrets)
    if found.token.startswith("kubernetes:") and "metadata" in inputs:
        inputs["metadata"] = {"name": f"{found.name}{DRAWN}", **inputs["metadata"]}
    return Declared(found.token, found.name, found.urn, inputs, found.parent, found.provider, found.depends_on, found.protect)


def _program() -> None:
    runpy.run_path(str(CHECKOUT / "__main__.py"))


@contextlib.contextmanager
def _a_started_cluster() -> Iterator[None]:
    """A home that says that a cluster was started in it."""
    before = os.environ.get(HOME_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        os.environ[HOME_VARIABLE] = folder
        pretend_started(LocalHome.default(), "https://127.0.0.1:6443")
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(HOME_VARIABLE)
            else:
                os.environ[HOME_VARIABLE] = before


def _plain(value: Any, secrets: frozenset[str], path: str = "") -> Any:
    """A registered value as it goes over the wire, with the engine's mark around what is secret."""
    if path and path in secrets:
        return {SIGNATURE: SECRET, "value": _plain(value, frozenset(), path)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, secrets, f"{path}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, secrets, f"{path}[{index}]") for index, item in enumerate(value)]
    return value if value is None or isinstance(value, (str, int, float, bool)) else UNKNOWN_MARK


def shipped(stack: str, folder: Path = CHECKOUT) -> dict[str, str]:
    """The configuration of Pulumi.<stack>.yaml as the engine hands it over: texts, objects as JSON."""
    import yaml

    document = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}
