"""What happens between fork and exec of a container: its mount namespace and root, its user, its program.

Runs in a child of pod_init without site-packages: standard library only. Nothing here returns; problems are one line to the parent.
"""

# pathlib would cost every pod a MiB.
# ruff: noqa: PTH115

from __future__ import annotations

import fcntl
import os
import signal
import socket
import termios
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from embedded.agent import container_root, syscalls


def start(spec: Mapping[str, Any], stdin: int | None, stdout: int, stderr: int, report: int, terminal: int | None) -> NoReturn:
    """Becomes the container's main process. `report` gets the mount namespace's name, then the problem if there is one.

    terminal: a Unix socket that gets the other end of the terminal, which then takes the place of all three streams.
    """
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
        if terminal is not None:
            _take_terminal(terminal)
        else:
            os.dup2(os.open("/dev/null", os.O_RDONLY) if stdin is None else stdin, 0)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
        os.umask(0o022)
        _run(spec["argv"], spec["env"])
    except BaseException as error:
        os.write(report, _words(error).encode()[:4000])
    os._exit(127)


def execute(
    target: int, argv: Sequence[str], env: Mapping[str, str], fds: Sequence[int], cwd: str | None = None, terminal: bool = False
) -> NoReturn:
    """Runs a command in the namespaces of the container whose main process is `target`.

    fds: standard input, output and errors; with `terminal` a Unix socket that gets the other end of a new one.
    """
    complaints = fds[-1]
    try:
        os.setsid()
        _ordinary_signals()
        handles = [os.open(f"/proc/{target}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "user")]
        syscalls.setns(handles[0], syscalls.CLONE_NEWNS)
        syscalls.setns(handles[1], syscalls.CLONE_NEWUSER)
        if cwd is not None:
            os.chdir(cwd)
        if terminal:
            _take_terminal(fds[0])
            complaints = 2
        else:
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
        _run(argv, env)
    except BaseException as error:
        os.write(complaints, _words(error).encode()[:4000] + b"\n")
    os._exit(126)


def _take_terminal(channel: int) -> None:
    """Opens a terminal of the container's own and makes it that of this session; the other end goes to whoever asked."""
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise OSError(error.errno, "this kernel lets a container have no terminal", "/dev/ptmx") from error
    with socket.socket(fileno=channel) as asked:
        socket.send_fds(asked, [b"t"], [master])
    os.close(master)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)
    os.close(slave)


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
