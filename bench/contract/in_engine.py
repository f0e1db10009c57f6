"""Runs in vLLM's own Python: its parser on command lines, and its libraries on checkpoints. Reads and writes JSON.

PYTHON in_engine.py < {"command_lines": [[word, ...], ...], "checkpoints": [folder, ...]}
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

# Where vLLM keeps its parser: 0.33, 0.32, 0.11.
_PLACES = ("openai", "launchers", "common")


def main() -> None:
    asked = json.load(sys.stdin)
    # Whatever the libraries print is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        found = {
            "command_lines": [parsed(words) for words in asked["command_lines"]],
            "checkpoints": {folder: loaded(Path(folder)) for folder in asked["checkpoints"]},
        }
    print(json.dumps(found))


def parsed(words: list[str]) -> dict[str, Any]:
    """{"exit", "error": the last line it wrote, "values": those that differ from the defaults}."""
    parser = _parser()
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given = vars(parser.parse_args(words))
    except SystemExit as ended:
        lines = said.getvalue().strip().splitlines()
        return {"exit": ended.code, "error": lines[-1] if lines else ""}
    except Exception as error:
        return {"exit": 1, "error": f"{type(error).__name__}: {error}"}
    defaults = vars(parser.parse_args([]))
    return {"exit": 0, "values": {name: value for name, value in given.items() if value != defaults.get(name) and _plain(value)}}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool, list))


def _parser() -> Any:
    from importlib import import_module

    from vllm.utils.argparse_utils import FlexibleArgumentParser

    if not hasattr(_parser, "made"):
        for place in _PLACES:
            with contextlib.suppress(ModuleNotFoundError):
                make = import_module(f"vllm.entrypoints.{place}.cli_args").make_arg_parser
        _parser.made = make(FlexibleArgumentParser(prog="api_server.py"))  # type: ignore[attr-defined]
    return _parser.made  # type: ignore[attr-defined]


def loaded(folder: Path) -> dict[str, str]:
    """What reads the checkpoint: "" for well, else the error."""
    return {
        name: _tried(read, folder) for name, read in (("safetensors", _tensors), ("transformers", _model), ("tekken.json", _tekken))
    }


def _tried(read: Any, folder: Path) -> str:
    try:
        read(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def _tensors(folder: Path) -> None:
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no mapping)
                tensors.get_tensor(name)


def _model(folder: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "the rest"}], tokenize=True, return_dict=False)
    assert max(ids) < config.vocab_size
    assert "the rest" in tokenizer.decode(ids)


def _tekken(folder: Path) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    file = folder / "tekken.json"
    if file.exists():
        tokenizer = Tekkenizer.from_file(file)
        assert tokenizer.decode(tokenizer.encode("the rest", bos=False, eos=False)) == "the rest"


if __name__ == "__main__":
    main()
