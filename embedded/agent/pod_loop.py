"""The event loop of a pod's first process: it starts and reaps containers, writes their logs and hands out sockets.

Requests come over a Unix socket, one JSON message each (see frames), and are answered in order on the same connection:
    hello                                            -> containers and their states; separate: Services have a network of their own
    start    name, attempt, argv, env, root..., log  -> pid, or error
    signal   name, number, everyone                  -> {}
    exec     name, argv                              -> exit, output; closing the connection kills it
    run      name, argv, terminal; descriptors       -> exit; the same with streams of whoever asks (sandbox.run)
    attach   name; two descriptors                   -> the container's standard input, if it has one, as a descriptor
    close-input  name                                -> {}; nobody will write into it any more
    sockets  count                                   -> that many unconnected TCP sockets of the pod's network
    listen   address, port                           -> a socket that listens on a Service's address for the pod, or error
    events                                           -> from now on, states are sent on this connection as they change
    stop                                             -> the pod ends
"""

# pathlib would cost every pod a MiB.

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from embedded.agent import frames
from embedded.agent.pod_network import Network
from embedded.agent.pod_processes import Container, Exec
from embedded.agent.pod_streams import Attached, Audience, close_all

# What an exec'd probe may say; kubelet keeps 10 KiB too.
_MOST_OUTPUT = 10 * 2**10


class Loop:
    """See the module. `network`: where Services are listened on."""

    def __init__(self, listener: socket.socket, network: Network) -> None:
        self._listener = listener
        self._network = network
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._containers: dict[str, Container] = {}
        self._execs: dict[int, Exec] = {}
        self._watchers: list[socket.socket] = []
        wake, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

        def reap() -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            self._reap()

        self._on(wake, reap)
        self._on(listener.fileno(), self._accept)

    def run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if (handler := self._ready.get(fd)) is not None:
                    handler()

    def _on(self, fd: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        self._ready[fd] = handler
        self._epoll.register(fd, events)

    def _off(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # -- requests ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(10.0)
        self._on(connection.fileno(), lambda: self._serve(connection))

    def _serve(self, connection: socket.socket) -> None:
        try:
            request, fds = frames.receive(connection)
            if request["op"] == "run":
                self._run(connection, request, fds)
            elif request["op"] == "attach":
                self._attach(connection, request["name"], fds)
            else:
                close_all(fds)
                self._answer(connection, request)
        except (frames.Closed, OSError, ValueError):
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._off(connection.fileno())
        if connection in self._watchers:
            self._watchers.remove(connection)
        for running in [each for each in self._execs.values() if each.connection is connection]:
            self._end_exec(running)
        connection.close()

    def _answer(self, connection: socket.socket, request: dict[str, Any]) -> None:
        what = request["op"]
        if what == "hello":
            frames.send(connection, self._hello())
        elif what == "events":
            self._watchers.append(connection)
            frames.send(connection, self._hello())
        elif what == "start":
            self._start(connection, request)
        elif what == "signal":
            self._signal(request["name"], request["number"], request.get("everyone", False))
            frames.send(connection, {})
        elif what == "exec":
            self._exec(connection, request)
        elif what == "close-input":
            if (container := self._containers.get(request["name"])) is not None:
                container.close_input()
            frames.send(connection, {})
        elif what == "sockets":
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(min(request["count"], 32))]
            frames.send(connection, {}, [each.fileno() for each in sockets])
            for each in sockets:
                each.close()
        elif what == "listen":
            self._listen(connection, request["address"], request["port"])
        elif what == "stop":
            frames.send(connection, {})
            os._exit(0)  # the kernel ends everything else in this pid namespace
        else:
            frames.send(connection, {"error": f"unknown request {what!r}"})

    def _listen(self, connection: socket.socket, address: str, port: int) -> None:
        try:
            listener = self._network.listener(address, port)
        except OSError as error:
            frames.send(connection, {"error": os.strerror(error.errno or 0)})
            return
        with listener:
            frames.send(connection, {}, [listener.fileno()])

    def _hello(self) -> dict[str, Any]:
        return {"containers": self._states(), "separate": self._network.services is not None}

    def _states(self) -> list[dict[str, Any]]:
        return [container.state for container in self._containers.values()]

    def _tell(self, container: Container) -> None:
        for watcher in list(self._watchers):
            try:
                frames.send(watcher, container.state)
            except (frames.Closed, OSError):
                self._drop(watcher)

    # -- containers ----------------------------------------------------------------------------------------------------

    def _start(self, connection: socket.socket, spec: dict[str, Any]) -> None:
        name = spec["name"]
        if (old := self._containers.get(name)) is not None and old.state["finished"] is None:
            frames.send(connection, {"error": f"container {name} still runs"})
            return
        pipes = {stream: os.pipe2(os.O_CLOEXEC) for stream in ("stdout", "stderr")}
        report, report_end = os.pipe2(os.O_CLOEXEC)
        typed, write = os.pipe2(os.O_CLOEXEC) if spec["stdin"] and not spec["terminal"] else (None, None)
        ours, theirs = socket.socketpair() if spec["terminal"] else (None, None)
        pid = os.fork()
        if pid == 0:
            from embedded.agent import container_child

            end = None if theirs is None else theirs.fileno()
            container_child.start(spec, typed, pipes["stdout"][1], pipes["stderr"][1], report_end, end)
        close_all([*(end for _, end in pipes.values()), report_end, *([] if typed is None else [typed])])
        if theirs is not None:
            theirs.close()
        container = Container(spec, pid, write)
        container.audience = Audience(self._on, self._off, lambda: self._resume(container))
        self._containers[name] = container
        for stream, (begin, _) in pipes.items():
            os.set_blocking(begin, False)
            container.pipes[begin] = stream
            self._on(begin, self._copier(container, begin))
        said = b""

        def reported() -> None:
            nonlocal said
            data = os.read(report, 65536)
            said += data
            if data:
                return
            container.report = None
            self._off(report)
            os.close(report)
            if ours is not None:
                self._take_terminal(container, ours)
            namespace, _, problem = said.decode(errors="replace").partition("\n")
            # By it the agent, too, knows whose a process is.
            container.state["mounts"] = namespace
            reply: dict[str, Any] = {"pid": pid, "state": container.state}
            if problem:
                # Never a running container, so its end is not an event either.
                self._containers.pop(name, None)
                self._close_pipes(container)
                reply = {"error": problem}
            try:
                frames.send(connection, reply)
            except (frames.Closed, OSError):
                self._drop(connection)

        container.report = reported
        self._on(report, reported)

    def _copier(self, container: Container, fd: int) -> Callable[[], None]:
        def copy() -> None:
            self._copy(container, fd)

        return copy

    def _copy(self, container: Container, fd: int) -> bool:
        """Copies what a container has written to its log; False when there is nothing left for now."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # a terminal that nobody has open any more
        if not data:
            self._off(fd)
            os.close(fd)
            container.pipes.pop(fd)
            return False
        stream = container.pipes[fd]
        container.log.write(stream, data)
        if container.audience.tell(stream, data):
            for pipe in container.pipes:
                self._off(pipe)
        return True

    def _resume(self, container: Container) -> None:
        for fd in container.pipes:
            if fd not in self._ready:
                self._on(fd, self._copier(container, fd))

    def _take_terminal(self, container: Container, channel: socket.socket) -> None:
        """The other end of a container's terminal: what it writes comes from there, and what is typed goes there."""
        with channel:
            channel.setblocking(False)
            try:
                _, fds, _, _ = socket.recv_fds(channel, 1, 1)
            except OSError:
                return
        for master in fds:
            container.stdin = os.dup(master)
            os.set_blocking(master, False)
            container.pipes[master] = "stdout"
            self._on(master, self._copier(container, master))

    def _close_pipes(self, container: Container) -> None:
        for fd in list(container.pipes):
            while fd in container.pipes and self._copy(container, fd):
                pass
            if fd in container.pipes:
                self._off(fd)
                os.close(fd)
                container.pipes.pop(fd)
        container.log.finish()
        container.close_input()
        container.audience.finish()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (running := self._execs.get(pid)) is not None:
                self._finish_exec(running, status)
                continue
            for container in list(self._containers.values()):
                if container.pid == pid and container.state["finished"] is None:
                    self._ended(container, status)

    def _ended(self, container: Container, status: int) -> None:
        while container.report is not None:
            container.report()
        if self._containers.get(container.state["name"]) is not container:
            return  # it ended before it had begun: its start was answered with the reason
        container.state["finished"] = time.time()
        if os.WIFSIGNALED(status):
            container.state["signal"] = os.WTERMSIG(status)
            container.state["code"] = 128 + os.WTERMSIG(status)
        else:
            container.state["code"] = os.waitstatus_to_exitcode(status)
        # As with a real container, whatever its main process started ends with it.
        container.signal_everyone(signal.SIGKILL)
        self._close_pipes(container)
        self._tell(container)

    def _signal(self, name: str, number: int, everyone: bool) -> None:
        container = self._containers.get(name)
        if container is None or container.state["finished"] is not None:
            return
        if everyone:
            container.signal_everyone(number)
        with contextlib.suppress(ProcessLookupError):
            os.kill(container.pid, number)

    # -- commands in a container ---------------------------------------------------------------------------------------

    def _exec(self, connection: socket.socket, request: dict[str, Any]) -> None:
        container = self._containers.get(request["name"])
        if container is None or container.state["finished"] is not None:
            frames.send(connection, {"error": f"container {request['name']} does not run"})
            return
        begin, end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            from embedded.agent import container_child

            null = os.open("/dev/null", os.O_RDONLY)
            container_child.execute(container.pid, request["argv"], container.env, (null, end, end))
        os.close(end)
        os.set_blocking(begin, False)
        running = Exec(connection, pid, begin)
        self._execs[pid] = running
        self._on(begin, lambda: self._collect(running))

    def _run(self, connection: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        container = self._containers.get(request["name"])
        if container is None or container.state["finished"] is not None:
            close_all(fds)
            frames.send(connection, {"error": f"container {request['name']} does not run"})
            return
        terminal = request["terminal"]
        pid = os.fork()
        if pid == 0:
            from embedded.agent import container_child

            env = {**container.env, "TERM": "xterm"} if terminal else container.env
            container_child.execute(container.pid, request["argv"], env, fds, container.cwd, terminal)
        close_all(fds)
        self._execs[pid] = Exec(connection, pid, None)

    def _attach(self, connection: socket.socket, name: str, fds: list[int]) -> None:
        container = self._containers.get(name)
        if container is None or container.state["finished"] is not None:
            close_all(fds)
            frames.send(connection, {"error": f"container {name} does not run"})
            return
        container.audience.join(Attached(*fds))
        frames.send(connection, {}, [] if container.stdin is None else [container.stdin])

    def _collect(self, running: Exec) -> None:
        if running.output is None:
            return
        try:
            data = os.read(running.output, 65536)
        except BlockingIOError:
            return
        if not data:
            self._off(running.output)
            return
        running.text = (running.text + data)[:_MOST_OUTPUT]

    def _finish_exec(self, running: Exec, status: int) -> None:
        del self._execs[running.pid]
        if running.output is not None:
            self._collect(running)
            self._off(running.output)
            os.close(running.output)
        code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        try:
            frames.send(running.connection, {"exit": code, "output": running.text.decode(errors="replace")})
        except (frames.Closed, OSError):
            self._drop(running.connection)

    @staticmethod
    def _end_exec(running: Exec) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
