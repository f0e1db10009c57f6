"""Moves files from the hub into the bucket: parts are read and sent in parallel, digests are computed as they pass.

Readers fill buffers from the hub; senders write them to the store. A file's digest needs its parts in order, so a buffer is kept
until it is sent and hashed. Buffers are handed out in the order of the parts: a part that waits for an earlier one
to be hashed waits for one that has a buffer, so all of them move on. Nothing touches a disk.
"""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mistral_on_l4.jobs.weights_files import Digest, HubFile
from mistral_on_l4.jobs.weights_hub import Hub, Snapshot
from mistral_on_l4.jobs.weights_limits import Failure, Limits, Stop, Stopped
from mistral_on_l4.jobs.weights_progress import Progress
from mistral_on_l4.jobs.weights_record import Notes, OpenUpload, SeededFile
from mistral_on_l4.jobs.weights_store import Part, Store, StoredObject, UploadGone

# Digests of so many files grow side by side. More would end together, and leave the store to join all of them at the end.
_FILES_AT_ONCE = 2
# Digests take pieces of this size: still in the processor's cache, and few enough that threads do not wait for each other.
_PIECE_BYTES = 1024 * 1024
_RESTARTS = 3
_STOP_SECONDS = 2.0
_NO_PART = 0


@dataclass
class Task:
    """A file on its way. upload: its unfinished upload, None for one that is put whole; have: parts that the store has.

    digest: None for a file that goes on after a kill: its first parts never passed here, so it is read back in the end.
    """

    file: HubFile
    key: str
    part_bytes: int
    upload: str | None = None
    have: dict[int, Part] = field(default_factory=dict)
    digest: Digest | None = None
    waiting: deque[int] = field(default_factory=deque)
    restarts: int = 0
    # Sent, and waiting to be hashed.
    kept: dict[int, bytearray] = field(default_factory=dict)
    # Given up for a new upload; what is still on its way for it is dropped.
    dead: bool = False
    # What has arrived of parts that are not all hashed: the buffer, and how many bytes of it are there.
    _ready: dict[int, tuple[memoryview, int]] = field(default_factory=dict)
    # Whole parts that are hashed, and bytes of the next one.
    _hashed: int = 0
    _hashed_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _hashing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.waiting = deque(number for number in range(1, self.count + 1) if number not in self.have)
        self.digest = None if self.have else Digest(self.file)

    @property
    def count(self) -> int:
        return max(-(-self.file.size // self.part_bytes), 1)

    @property
    def whole(self) -> bool:
        """Whether it is put in one piece."""
        return self.count == 1

    def length(self, number: int) -> int:
        return min(self.part_bytes, self.file.size - (number - 1) * self.part_bytes)

    def present_bytes(self) -> int:
        return sum(self.length(number) for number in self.have)

    def arrived(self, number: int, buffer: memoryview, there: int) -> None:
        """Hashes what can be hashed now, while it is in the processor's cache; a thread that is already hashing takes it along."""
        if self.digest is None:
            return
        with self._lock:
            self._ready[number] = (buffer, there)
            turn = number == self._hashed + 1 or there == len(buffer)
        # One that leaves the loop just now may have missed it: so look again once it is out.
        while turn and self._hashing.acquire(blocking=False):
            try:
                while (following := self._next()) is not None:
                    self.digest.update(following)
                    self._count(len(following))
            finally:
                self._hashing.release()
            turn = self._next() is not None

    def _next(self) -> memoryview | None:
        """Bytes that are there and whose turn it is."""
        with self._lock:
            buffer, there = self._ready.get(self._hashed + 1, (None, 0))
            return buffer[self._hashed_bytes : there] if buffer is not None and there > self._hashed_bytes else None

    def _count(self, count: int) -> None:
        with self._lock:
            self._hashed_bytes += count
            if self._hashed_bytes == self.length(self._hashed + 1):
                self._hashed, self._hashed_bytes = self._hashed + 1, 0
                del self._ready[self._hashed]

    @property
    def unhashed(self) -> set[int]:
        with self._lock:
            return set(self._ready)


class Transfer:
    """Moves tasks. Everything that goes wrong for good ends up in `stop`."""

    def __init__(
        self, hub: Hub, snapshot: Snapshot, store: Store, notes: Notes, limits: Limits, progress: Progress, stop: Stop
    ) -> None:
        self._hub, self._snapshot, self._store, self._notes = hub, snapshot, store, notes
        self._limits, self._progress, self._stop = limits, progress, stop
        self._change = threading.Condition()
        self._queue: deque[Task] = deque()
        self._active: deque[Task] = deque()
        self._unfinished = 0
        self._in_flight = 0
        self._free: list[bytearray] = []
        self._to_send: queue.SimpleQueue[tuple[Task, int, bytearray, int] | None] = queue.SimpleQueue()
        self.results: dict[str, SeededFile] = {}

    def run(self, tasks: Iterable[Task]) -> dict[str, SeededFile]:
        """Returns when all are in the bucket and proven, by path. Raises the Failure that stopped it."""
        for task in tasks:
            self._unfinished += 1
            if task.waiting:
                self._queue.append(task)
            else:  # the kill came between its last part and the completion
                self._to_send.put((task, _NO_PART, bytearray(), 0))
        readers = [threading.Thread(target=self._guard, args=(self._reader,), daemon=True) for _ in range(self._limits.connections)]
        senders = [threading.Thread(target=self._guard, args=(self._sender,), daemon=True) for _ in range(self._limits.uploads)]
        for thread in (*readers, *senders):
            thread.start()
        with self._change:
            while self._unfinished and not self._stop.is_set():
                self._change.wait(0.5)
            self._change.notify_all()
        for _ in senders:
            self._to_send.put(None)
        end = time.monotonic() + _STOP_SECONDS
        for thread in (*readers, *senders):
            # Those that wait for a stalled peer are left behind: the process ends.
            thread.join(timeout=max(end - time.monotonic(), 0.0) if self._stop.is_set() else None)
        if self._stop.is_set():
            raise self._stop.reason or Stopped()
        return self.results

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Stopped:
            pass
        except Failure as failure:
            self._stop.because(failure)
        except Exception as error:  # a thread must not die unseen, or all wait for it
            self._stop.because(Failure(f"{type(error).__name__}: {error}"))
        with self._change:
            self._change.notify_all()

    # -- reading -------------------------------------------------------------------------------------------------------

    def _reader(self) -> None:
        while (taken := self._take()) is not None:
            task, number = taken
            data = self._buffer(task.length(number))
            self._to_send.put((task, number, data, self._read(task, number, data)))

    def _read(self, task: Task, number: int, data: bytearray) -> int:
        """Fills the buffer; its CRC-32. What must be computed of the bytes is computed piece by piece as they come."""
        view, crc, before = memoryview(data), 0, 0

        def arrived(there: int) -> None:
            nonlocal crc, before
            if there - before < _PIECE_BYTES and there < len(data):
                return
            crc = zlib.crc32(view[before:there], crc)
            self._progress.received(task.file.path, there - before)
            before = there
            if not task.whole:
                task.arrived(number, view, there)

        if data:
            self._hub.read(self._snapshot, task.file, (number - 1) * task.part_bytes, view, arrived)
        return crc

    def _take(self) -> tuple[Task, int] | None:
        """The next part to read, when there is a buffer for it; None when all is done. Raises Stopped."""
        with self._change:
            while True:
                if self._stop.is_set():
                    raise Stopped
                if not self._unfinished:
                    return None
                if self._in_flight < self._limits.parts_in_flight:
                    while self._queue and len(self._active) < _FILES_AT_ONCE:
                        self._active.append(self._queue.popleft())
                    if self._active:
                        task = self._active.popleft()
                        number = task.waiting.popleft()
                        if task.waiting:
                            self._active.append(task)
                        self._in_flight += 1
                        return task, number
                self._change.wait(1.0)

    def _buffer(self, length: int) -> bytearray:
        with self._change:
            # One goes for each that comes, or those that are free would be beyond the bound.
            if self._free and len(free := self._free.pop()) == length:
                return free
        return bytearray(length)

    def _release(self, data: bytearray) -> None:
        with self._change:
            self._in_flight -= 1
            if len(data) == self._limits.part_bytes(0):
                self._free.append(data)
            self._change.notify()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _sender(self) -> None:
        while (item := self._to_send.get()) is not None:
            if self._stop.is_set():
                raise Stopped
            task, number, data, crc = item
            try:
                if number == _NO_PART:
                    self._complete(task)
                elif task.dead:
                    self._release(data)
                elif task.whole:
                    self._put(task, data)
                else:
                    self._send(task, number, data, crc)
            except UploadGone as gone:
                self._restart(task, str(gone))

    def _put(self, task: Task, data: bytearray) -> None:
        digest = task.digest = Digest(task.file)
        digest.update(data)
        self._check(task, digest)
        stored = self._store.put(task.key, data, metadata(task.file, self._snapshot.commit))
        self._release(data)
        self._finished(task, digest.sha256, stored)

    def _send(self, task: Task, number: int, data: bytearray, crc: int) -> None:
        try:
            part: Part | None = self._store.put_part(task.key, task.upload or "", number, data, crc)
        except (UploadGone, Failure):
            if not task.dead:
                self._release(data)
                raise
            part = None
        with self._change:
            if not task.dead and part is not None:
                task.have[number] = part
                task.kept[number] = data
            complete = not task.dead and len(task.have) == task.count
        if task.dead:
            self._release(data)
            return
        self._free_hashed(task)
        # The last part to be sent finds all others hashed: a reader hands its part on only after it has hashed what was its turn.
        if complete:
            self._complete(task)

    def _free_hashed(self, task: Task) -> None:
        """Gives back buffers that were sent and are hashed by now."""
        unhashed = task.unhashed
        with self._change:
            buffers = [task.kept.pop(number) for number in set(task.kept) - unhashed]
        for data in buffers:
            self._release(data)

    def _complete(self, task: Task) -> None:
        upload = task.upload or ""
        if task.digest is not None:
            try:
                self._check(task, task.digest)
            except Failure:
                self._store.abort(task.key, upload)
                raise
        stored = self._store.complete(task.key, upload, [task.have[number] for number in range(1, task.count + 1)])
        if task.digest is not None:
            self._finished(task, task.digest.sha256, stored)
            return
        proven = read_back(self._store, task.file, stored, self._stop)
        if isinstance(proven, SeededFile):
            self._finished(task, proven.sha256, stored)
            return
        self._store.delete(task.key)
        self._restart(task, f"{task.file.path} went on after a kill, and {proven}")

    def _check(self, task: Task, digest: Digest) -> None:
        problem = digest.problem()
        if problem:
            raise Failure(f"{task.file.path} of {self._snapshot.repository} at {self._snapshot.commit} is damaged: {problem}")

    def _finished(self, task: Task, sha256: str, stored: StoredObject) -> None:
        seeded = SeededFile(task.file.path, stored.size, sha256, stored.etag)
        if task.whole:
            self._notes.proven(seeded)
        else:
            self._notes.finished(self._store, seeded)
        with self._change:
            self.results[task.file.path] = seeded
            self._unfinished -= 1
            self._change.notify_all()

    def _restart(self, task: Task, reason: str) -> None:
        """From the first part, in a new upload. Several senders may find out at a time."""
        with self._change:
            if task.dead:
                return
            task.dead = True
            if task in self._active:
                self._active.remove(task)
            buffers = list(task.kept.values())
            task.kept = {}
        for data in buffers:
            self._release(data)
        if task.restarts >= _RESTARTS:
            raise Failure(f"{reason}; {_RESTARTS} new uploads fared no better")
        self._progress.say(f"again from its first part: {reason}")
        self._store.abort(task.key, task.upload or "")
        self._progress.again(task.file.path)
        upload = begin(self._store, self._notes, task.file, task.key, task.part_bytes, self._snapshot.commit)
        with self._change:
            self._queue.appendleft(Task(task.file, task.key, task.part_bytes, upload, restarts=task.restarts + 1))
            self._change.notify_all()


def metadata(file: HubFile, commit: str) -> dict[str, str]:
    """User metadata of an object: what it is said to be. Nothing here relies on it."""
    return {"content": file.identity, "commit": commit}


def begin(store: Store, notes: Notes, file: HubFile, key: str, part_bytes: int, commit: str) -> str:
    """Begins an upload and notes it; its id."""
    upload = store.create_upload(key, metadata(file, commit))
    notes.began(store, file.path, OpenUpload(upload, part_bytes, file.identity))
    return upload


def read_back(store: Store, file: HubFile, stored: StoredObject, stop: Stop) -> SeededFile | str:
    """Proves an object by reading all of it from the store; else what is wrong with it. Raises Failure, Stopped."""
    if stored.size != file.size:
        return f"it has {stored.size} bytes, not {file.size}"
    digest = Digest(file)
    for data in store.stream(stored.key, stored.size):
        if stop.is_set():
            raise Stopped
        digest.update(data)
    return digest.problem() or SeededFile(file.path, file.size, digest.sha256, stored.etag)
