"""Serves Pulumi's LanguageRuntime protocol: one process per operation of the CLI, one fresh interpreter per program run."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedded.plugins import lean_sdk

lean_sdk.prepare()

from google.protobuf.empty_pb2 import Empty  # type: ignore[attr-defined]  # noqa: E402
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2  # noqa: E402

from embedded.plugins import serving  # noqa: E402
from embedded.plugins.stack_files import forget_salts, project_folder  # noqa: E402

RUNNER = Path(__file__).with_name("runner.py")
# The official host's exit code of a program whose error has been shown already.
SHOWN = 32
_THREADS = 16


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Answers the engine. Children are the program's or the policy pack's processes; none outlives its call."""

    def __init__(self, engine_address: str) -> None:
        self._engine_address = engine_address
        self._children: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    # -- the protocol --------------------------------------------------------------------------------------------------

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return plugin_pb2.PluginInfo()

    def About(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        version = ".".join(map(str, sys.version_info[:3]))
        return language_pb2.AboutResponse(executable=interpreter(request.info), version=version)

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        answer = language_pb2.GetRequiredPackagesResponse()
        for name, version, server in required_plugins():
            answer.packages.add(name=name, kind="resource", version=version, server=server)
        return answer

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        answer = language_pb2.GetRequiredPluginsResponse()
        for name, version, server in required_plugins():
            answer.plugins.add(name=name, kind="resource", version=version, server=server)
        return answer

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        from importlib.metadata import distributions

        answer = language_pb2.GetProgramDependenciesResponse()
        for name, version in sorted({(found.metadata["Name"], found.version) for found in distributions()}):
            answer.dependencies.add(name=name, version=version)
        return answer

    def InstallDependencies(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002
        text = "This project's packages are locked: `make venv` installs them.\n"
        yield language_pb2.InstallDependenciesResponse(stdout=text.encode())

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return language_pb2.RuntimeOptionsResponse()

    def Run(self, request: Any, context: Any) -> Any:
        directory = request.info.program_directory or request.pwd
        order = {
            "directory": directory,
            "program": str(Path(directory, request.info.entry_point or request.program or ".")),
            "pwd": request.pwd,
            "arguments": list(request.args),
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization or "organization",
            "monitor": request.monitor_address,
            "engine": self._engine_address,
            "parallel": request.parallel,
            "preview": request.dryRun,
            "config": dict(request.config),
            "secretKeys": list(request.configSecretKeys),
        }
        command = [interpreter(request.info), "-u", str(RUNNER)]
        try:
            child = self._start(command, cwd=request.pwd or directory, stdin=subprocess.PIPE)
        except OSError as error:
            return language_pb2.RunResponse(error=f"the program's interpreter does not start: {error}")
        context.add_callback(lambda: _end(child))
        assert child.stdin is not None
        try:
            # By standard input, because the configuration may hold secrets; and it stays open: its end tells the child that
            # this host is gone.
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass
        code = self._wait(child)
        if code == 0:
            return language_pb2.RunResponse()
        if code == SHOWN:
            return language_pb2.RunResponse(bail=True)
        what = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        return language_pb2.RunResponse(error=f"the program {what}")

    def RunPlugin(self, request: Any, context: Any) -> Iterator[Any]:
        directory = request.info.program_directory
        environment = dict(entry.partition("=")[::2] for entry in request.env)
        command = [interpreter(request.info), "-u"]
        if request.kind == "analyzer":
            command += ["-m", "pulumi.policy", *request.args, directory]
            # As the official host does: a policy pack sees its own folder as the current one.
            pwd = directory
        else:
            command += [directory, *request.args]
            pwd = request.pwd or directory
        pipe = subprocess.PIPE
        child = self._start(command, cwd=pwd, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        context.add_callback(lambda: _end(child))
        said: queue.Queue[tuple[str, bytes]] = queue.Queue()
        for name, stream in (("stdout", child.stdout), ("stderr", child.stderr)):
            threading.Thread(target=_pump, args=(name, stream, said), daemon=True).start()
        open_streams = 2
        while open_streams:
            name, data = said.get()
            if data:
                yield (
                    language_pb2.RunPluginResponse(stdout=data) if name == "stdout" else language_pb2.RunPluginResponse(stderr=data)
                )
            else:
                open_streams -= 1
        yield language_pb2.RunPluginResponse(exitcode=self._wait(child))

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        self.end_children()
        return Empty()

    # -- children ------------------------------------------------------------------------------------------------------

    def _start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command, **options)
        with self._lock:
            self._children.add(child)
        return child

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        code = child.wait()
        with self._lock:
            self._children.discard(child)
        if child.stdin:
            child.stdin.close()
        return code

    def end_children(self) -> None:
        with self._lock:
            children = list(self._children)
        for child in children:
            _end(child)


def _pump(name: str, stream: Any, said: queue.Queue[tuple[str, bytes]]) -> None:
    while data := stream.read1(65536):
        said.put((name, data))
    said.put((name, b""))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Asks a child to end, and kills it if it has not after three seconds. Returns at once; a finished child is left alone."""
    if child.poll() is not None:
        return
    child.terminate()

    def insist() -> None:
        try:
            child.wait(3.0)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=insist, daemon=True).start()


def interpreter(info: Any) -> str:
    """Python for a program or policy pack: that of its `virtualenv` runtime option, else this host's own.

    Another checkout of the project, such as a pull request's base, has no environment, and is run by this one's.
    """
    options = dict(info.options.items()) if info.HasField("options") else {}
    if virtualenv := options.get("virtualenv"):
        python = Path(info.root_directory, virtualenv, "bin", "python")
        if python.exists():
            return str(python)
    return sys.executable


def required_plugins() -> list[tuple[str, str, str]]:
    """(name, version, server) of resource plugins that installed packages need and that are installed.

    The official host names every plugin of every installed package, so that the CLI downloads what is missing. Here nothing is
    downloaded, and a stack without AWS must not fail for want of AWS's plugin: a missing one is reported where it is used.
    """
    home = os.environ.get("PULUMI_HOME")
    plugins = Path(home, "plugins") if home else Path.home() / ".pulumi" / "plugins"
    found = []
    for folder in sys.path:
        for file in sorted(Path(folder).glob("pulumi_*/pulumi-plugin.json")):
            described = json.loads(file.read_text())
            name, version = described.get("name"), described.get("version")
            if described.get("resource") and name and version and (plugins / f"resource-{name}-v{version}").is_dir():
                found.append((name, version, described.get("server") or ""))
    return found


def main(arguments: list[str]) -> None:
    """Serves until the engine interrupts."""
    if (project := project_folder(Path.cwd())) is not None:
        forget_salts(project, os.environ.get("PULUMI_BACKEND_URL", ""))
    host = LanguageHost(serving.engine_address(arguments))
    serving.serve(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server),
        host.end_children,
        _THREADS,
    )
