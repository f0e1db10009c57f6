"""Runs as `initializer-entrypoint SRC DEST [SRC DEST ...]`: KServe's own download code, called as its image calls it.

Run by the interpreter of the image's environment, by path: nothing of this project is imported.
"""

import ctypes
import logging
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    words = sys.argv[1:]
    if not words or len(words) % 2:
        print("Usage: initializer-entrypoint SRC_URI DEST_PATH [SRC_URI DEST_PATH ...]", file=sys.stderr)
        return 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if os.getpid() != os.getsid(0):
        os.setpgid(0, 0)
    # Download workers outlive a killed parent otherwise, and go on writing into a volume that is being removed.
    os.register_at_fork(after_in_child=_end_with_parent)
    try:
        from kserve_storage import Storage

        for folder in words[1::2]:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 (as the image does)
        logging.info("Initializing, args: %s", list(zip(words[0::2], words[1::2], strict=True)))
        Storage.download_files(words[0::2], words[1::2])
    except Exception as error:
        logging.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
