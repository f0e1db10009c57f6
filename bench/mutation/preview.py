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
from tests.support.engine import Engine, run

# pulumi_policy's own mark of a value that only `up` knows.
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def record(stack: str, config: Mapping[str, str]) -> Recording:
    """Runs __main__.py with a configuration of full keys (`mistral-on-l4:platform`). Raises what the program raises."""
    from components.platforms import local

    engine = Engine(calls=account(), outputs=OUTPUTS)
    values = {key.partition(":")[2]: value for key, value in config.items() if key.startswith("mistral-on-l4:")}
    if "aws:region" in config:
        values.setdefault("region", config["aws:region"])
    refuse, local._refuse_another_stack = local._refuse_another_stack, lambda *_: None
    try:
        with _a_started_cluster(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            run(_program, engine, stack, values, preview=True)
    finally:
        local._refuse_another_stack = refuse
    resources = (
        Declared(found.token, found.name, found.urn, _plain(dict(found.inputs)), found.parent, found.provider)
        for found in engine.resources
        if found.token != "pulumi:pulumi:Stack"
    )
    return Recording(stack, tuple(resources), dict(config), "the program on mocks")


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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else _UNKNOWN


def shipped(stack: str, folder: Path = CHECKOUT) -> dict[str, str]:
    """The configuration of Pulumi.<stack>.yaml as the engine hands it over: texts, objects as JSON."""
    import yaml

    document = yaml.safe_load((folder / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}
