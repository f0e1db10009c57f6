"""Runs one Pulumi program in this interpreter, as the language host orders on standard input (one line of JSON).

Exit codes: 0; 32 when the program failed and its error is shown already; any other is the program's own sys.exit.
Kept apart from the package: it is run as a file, so that nothing is imported which the program does not ask for.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

SHOWN = 32


def main() -> int:
    # Interrupts are the engine's business: it cancels the deployment and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The classes of a provider's package are many and none of them is garbage.
    gc.set_threshold(50_000, 20, 20)
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_the_host, daemon=True).start()
    os.chdir(order["pwd"] or order["directory"])
    # What `python folder` does: the program's folder is where imports start, not this file's.
    sys.path[0] = order["directory"]
    sys.argv = [order["program"], *order["arguments"]]
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)

    import grpc
    from pulumi import RunError, log
    from pulumi.runtime import reset_options, run_in_stack, set_all_config

    _quieten(log)
    reset_options(
        project=order["project"],
        stack=order["stack"],
        organization=order["organization"],
        monitor_address=order["monitor"],
        engine_address=order["engine"],
        parallel=order["parallel"],
        preview=order["preview"],
    )
    set_all_config(order["config"], order["secretKeys"])
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=max(order["parallel"], 1) * 4))
    loop.set_exception_handler(_handle_stray_exception)
    try:
        loop.run_until_complete(run_in_stack(lambda: _run(order["program"])))
        return 0
    except RunError as error:
        log.error(str(error))
        return SHOWN
    except grpc.RpcError as error:
        # The engine is on its way out and has said why, or never will.
        if error.code() != grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
            log.error(f"the engine refused a call of the program: {error.details()}")  # type: ignore[attr-defined]
        return SHOWN
    except SystemExit as exit_:
        if exit_.code is None or exit_.code == 0:
            return 0
        if isinstance(exit_.code, int):
            return exit_.code
        log.error(str(exit_.code))
        return SHOWN
    except BaseException as error:  # the program's own; whatever it is, its traceback is shown
        log.error(f"Program failed with an unhandled exception:\n{_traceback(error, order['directory'])}")
        return SHOWN
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                loop.run_until_complete(task)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()


def _quieten(log: Any) -> None:
    """Keeps the SDK's own debug lines from the engine: five calls per resource, a tenth of a preview, for lines that nobody sees.

    A program's own log.debug goes its way (and is shown by `--debug`).
    """
    say = log.debug

    def debug(*arguments: Any, **options: Any) -> None:
        if not sys._getframe(1).f_globals.get("__name__", "").startswith("pulumi."):
            say(*arguments, **options)

    log.debug = debug


def _run(program: str) -> None:
    import runpy

    runpy.run_path(program, run_name="__main__")


def _traceback(error: BaseException, directory: str) -> str:
    """The traceback from the program's first own frame on: what lies above it is this runner."""
    frames = traceback.extract_tb(error.__traceback__)
    root = Path(directory).resolve()
    own = (i for i, frame in enumerate(frames) if frame.filename[0] != "<" and Path(frame.filename).resolve().is_relative_to(root))
    lines = [
        "Traceback (most recent call last):\n",
        *traceback.format_list(frames[next(own, 0) :]),
        *traceback.format_exception_only(type(error), error),
    ]
    if (cause := error.__cause__) is not None:
        lines = [*traceback.format_exception(cause), "\nThe above exception was the direct cause of this one:\n\n", *lines]
    return "".join(lines).rstrip()


def _handle_stray_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    import grpc

    if isinstance(context.get("exception"), grpc.RpcError):
        loop.stop()
    else:
        loop.default_exception_handler(context)


def _die_with_the_host() -> None:
    """Standard input ends when the language host does, however it ended."""
    # Not by the buffered reader: its lock, held here for ever, would make the interpreter's own end fail.
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
