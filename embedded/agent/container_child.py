"""What happens between fork and exec of a container: its mount namespace and root, its user, its program.

Runs in a child of pod_init without site-packages: standard library only. Nothing here returns; problems are one line to the parent.
"""

# pathlib would cost every pod a MiB.
# ruff: noqa: PTH115

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from embedded.agent import container_root, syscalls


def start(spec: Mapping[str, Any], stdout: int, stderr: int, report: int) -> NoReturn:
    """Becomes the container's main process. `report` gets the mount namespace's name, then the problem if there is one."""
    try:
        os.setsid()
        _ordinary_signals()
        syscalls.unshare(syscalls.CLONE_NEWNS)
        os.write(report, os.readlink("/proc/self/ns/mnt").encode() + b"\n")
        root = container_root.build(spec)
        syscalls.pivot_into(root)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        syscalls.map_ids(spec["uid"], spec["gid"], 0, 0)
        os.chdir(spec["cwd"])
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.umask(0o022)
        _run(spec["argv"], spec["env"])
    except BaseException as error:
        os.write(report, _words(error).encode()[:4000])
    os._exit(127)


def execute(target: int, argv: Sequence[str], env: Mapping[str, str], output: int) -> NoReturn:
    """Runs a command in the namespaces of the container whose main process is `target`."""
    try:
        os.setsid()
        _ordinary_signals()
        handles = [os.open(f"/proc/{target}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "user")]
        syscalls.setns(handles[0], syscalls.CLONE_NEWNS)
        syscalls.setns(handles[1], syscalls.CLONE_NEWUSER)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _run(argv, env)
    except BaseException as error:
        os.write(output, _words(error).encode()[:4000])
    os._exit(126)


def _run(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    syscalls.no_new_privileges()
    program = argv[0]
    if "/" in program:
        os.execve(program, list(argv), dict(env))
    tried: OSError | None = None
    for folder in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{program}", list(argv), dict(env))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            tried = error
    if tried is not None:
        raise tried
    raise FileNotFoundError(0, "executable file not found in $PATH", program)


def _ordinary_signals() -> None:
    """Python ignores SIGPIPE and pod_init some others; a program must start with what it expects."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and (error.filename or error.filename2):
        return f'"{error.filename2 or error.filename}": {(error.strerror or str(error)).lower() if error.errno else error.strerror}'
    return f"{type(error).__name__}: {error}"
