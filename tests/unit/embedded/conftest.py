"""A home, a cache and a `go` of the tests' own: nothing of the user's is touched."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded.home import LocalHome

# Answers like `go`, and writes what a build would: each program is a script that prints the package it was built from.
FAKE_GO = r"""#!/bin/sh
echo "$$ $*" >> "$FAKE_GO_CALLS"
case "$1" in
env)
  if [ "$2" = GOVERSION ]; then echo "${FAKE_GO_VERSION:-go1.26.8}"; else echo '{"GOCACHE": "'$FAKE_GO_CACHE'", "GOMODCACHE": "'$FAKE_GO_CACHE'"}'; fi ;;
mod) echo '{"Dir": "'$FAKE_GO_CACHE'/module"}' ;;
list)
  echo "go: downloading example.org/one v1.0.0" >&2
  echo fmt; echo example.org/one; echo example.org/two ;;
build)
  shift
  while [ "$1" != -o ]; do shift; done
  out=$2; shift 2
  if [ -n "$FAKE_GO_FAILS" ]; then echo "example.org/one"; echo "main.go:7:2: $FAKE_GO_FAILS" >&2; exit 1; fi
  if [ -n "$FAKE_GO_SLEEPS" ]; then sleep "$FAKE_GO_SLEEPS" & echo $! > "$FAKE_GO_CACHE/compiler.pid"; wait; fi
  echo example.org/one >&2
  for package in "$@"; do
    case "$package" in *server/v3) name=server ;; *) name=${package##*/} ;; esac
    case "$out" in */) file=$out$name ;; *) file=$out ;; esac
    printf '#!/bin/sh\necho %s\n' "$package" > "$file"; chmod 755 "$file"
  done ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> LocalHome:
    made = LocalHome(tmp_path / "home")
    made.make()
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tools_cache() of a user who has built nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mistral-on-l4" / "tools"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a script of some name first on PATH; beside such scripts PATH holds only the system's own folders' basics."""
    folder = tmp_path / "bin"
    folder.mkdir()
    basics = tmp_path / "basics"
    basics.mkdir()
    for name in ("sh", "sleep", "chmod", "cat", "true"):
        (basics / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d) / name).exists()))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{basics}")

    def put(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return put


@pytest.fixture
def go_calls(program: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A fake `go` on PATH; answers the commands it was given so far, without their process ids."""
    program("go", FAKE_GO)
    calls = tmp_path / "go-calls"
    (tmp_path / "go-cache").mkdir()
    monkeypatch.setenv("FAKE_GO_CALLS", str(calls))
    monkeypatch.setenv("FAKE_GO_CACHE", str(tmp_path / "go-cache"))
    return lambda: [line.partition(" ")[2] for line in calls.read_text().splitlines()] if calls.exists() else []
