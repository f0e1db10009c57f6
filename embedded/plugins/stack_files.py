"""Keeps Pulumi from writing into tracked files.

With a passphrase, the CLI writes the stack's `encryptionsalt` into Pulumi.STACK.yaml at the first command. The same salt lies in
the stack's state, and with PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER the CLI takes it from there; but it writes it into the file
all the same, and lays the file out anew on the way. So the language host, which runs in every preview, up, refresh and destroy,
takes the line out again.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mistral_on_l4.files import write_whole

_SALT = re.compile(r"^encryptionsalt: *(\S+) *\n?", re.MULTILINE)
_NAME = re.compile(r"^name: *[\"']?([A-Za-z0-9_.-]+)", re.MULTILINE)


def project_folder(start: Path) -> Path | None:
    """The folder with Pulumi.yaml, `start` or one above it."""
    return next((folder for folder in (start, *start.parents) if (folder / "Pulumi.yaml").is_file()), None)


def forget_salts(project: Path, backend_url: str) -> list[Path]:
    """Takes the salt out of the project's stack files where the stack's state in a file:// backend holds the very same one.

    A file with secret values of its own keeps it: there it belongs to them. Returns the files that changed.
    """
    changed = []
    for file in sorted(project.glob("Pulumi.*.yaml")):
        text = file.read_text()
        found = _SALT.search(text)
        if found is None or re.search(r"^\s*secure:", text, re.MULTILINE):
            continue
        stack = file.name.removeprefix("Pulumi.").removesuffix(".yaml")
        if _salt_in_state(project, stack, backend_url) == found[1].strip("\"'"):
            rest = text[: found.start()] + text[found.end() :]
            write_whole(file, _as_committed(file, rest), mode=file.stat().st_mode & 0o777)
            changed.append(file)
    return changed


def _as_committed(file: Path, text: str) -> str:
    """git's copy of the file where `text` differs from it in white space only: that much the CLI has done, and nobody else."""
    import subprocess

    command = ["git", "show", f":./{file.name}"]
    try:
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=10.0, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return text
    return done.stdout if done.returncode == 0 and done.stdout.split() == text.split() else text


def state_file(project: Path, stack: str, backend_url: str) -> Path | None:
    """Where a file:// backend keeps a stack's state; None for other backends and unreadable projects."""
    url = urlsplit(backend_url)
    name = _NAME.search((project / "Pulumi.yaml").read_text())
    if url.scheme != "file" or name is None:
        return None
    return Path(url2pathname(url.path), ".pulumi", "stacks", name[1], f"{stack}.json")


def _salt_in_state(project: Path, stack: str, backend_url: str) -> str | None:
    file = state_file(project, stack, backend_url)
    try:
        state = json.loads(file.read_text()) if file is not None else {}
    except (OSError, ValueError):
        return None
    latest = (state.get("checkpoint") or {}).get("latest") or {}
    salt = ((latest.get("secrets_providers") or {}).get("state") or {}).get("salt")
    return salt if isinstance(salt, str) else None
