"""SPDY/3.1, the server's side, as far as Kubernetes uses it: streams inside one upgraded connection, which the client opens.

The API server speaks it to a kubelet for exec, attach and port-forward. No Python package of it is kept up. Frames and the
dictionary are those of the draft (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/, 2.2 and 2.6); flow control
is left out, as in the Go package that the API server uses (moby/spdystream): a stream that is not read holds its connection up.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 0x01
_LONGEST = 2**24 - 1
_CHUNK = 32 * 1024
# Received and not read, or written and not sent, in bytes.
_MOST_WAITING = 1024 * 1024
_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_ENDING = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Inform"
    "ation204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server E"
    "rror501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed,"
    " Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/pla"
    "in,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in (*_NAMES.split(), *_MORE)) + _ENDING.encode()


class Broken(Exception):
    """The other side sent no SPDY, or is gone."""


class Stream:
    """One stream. Reading and writing may happen on different threads."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str], ended: bool) -> None:
        self._session, self.number, self.headers = session, number, headers
        self._pieces: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._over = False
        self.waiting = 0
        if ended:
            self._pieces.put(b"")

    def read(self) -> bytes:
        """The next piece; b"" at the end, however it came."""
        if self._over:
            return b""
        data = self._pieces.get()
        self._over = not data
        self._session.taken(self, len(data))
        return data

    def write(self, data: bytes) -> None:
        """Raises Broken when the connection is gone."""
        for start in range(0, len(data), _CHUNK):
            piece = data[start : start + _CHUNK]
            self._session.send(struct.pack(">II", self.number, len(piece)) + piece)

    def close(self) -> None:
        """Says that nothing more will be written."""
        with contextlib.suppress(Broken):
            self._session.send(struct.pack(">II", self.number, _FIN << 24))

    def feed(self, data: bytes) -> None:
        """From the session: what came, b"" for the end."""
        self.waiting += len(data)
        self._pieces.put(data)


class Session:
    """One upgraded connection. All of its input and output happens on the thread that iterates over `streams`.

    at_end: called when the connection ends.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setblocking(False)
        self._wake, self._wakened = socket.socketpair()
        self._wake.setblocking(False)
        self._wakened.setblocking(False)
        self._lock = threading.Condition()
        self._out = bytearray()
        self._in = bytearray()
        self._streams: dict[int, Stream] = {}
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._ended = False
        self._closing = False
        self.at_end: list[Callable[[], None]] = []

    # -- for the streams, from any thread --------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Queues a frame; waits while much is queued. Raises Broken."""
        with self._lock:
            self._lock.wait_for(lambda: len(self._out) < _MOST_WAITING or self._ended)
            if self._ended:
                raise Broken("the connection is closed")
            self._out += frame
        self._rouse()

    def taken(self, stream: Stream, count: int) -> None:
        with self._lock:
            stream.waiting -= count
        self._rouse()

    def close(self) -> None:
        """Ends the connection once everything that was written is sent."""
        self._closing = True
        self._rouse()

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):
            self._wake.send(b".")

    # -- the connection's thread -----------------------------------------------------------------------------------------

    def streams(self) -> Iterator[Stream]:
        """Every stream as the client opens it, until the connection ends; then all of them are at their end."""
        try:
            while True:
                opened = self._turn()
                if opened is None:
                    return
                yield from opened
        except (OSError, ValueError, Broken, zlib.error, struct.error):
            return
        finally:
            with self._lock:
                self._ended = True
                self._lock.notify_all()
            for stream in self._streams.values():
                stream.feed(b"")
            for call in self.at_end:
                call()
            self._wake.close()
            self._wakened.close()

    def _turn(self) -> list[Stream] | None:
        """Waits for something to do and does it. None at the end."""
        with self._lock:
            full = any(stream.waiting > _MOST_WAITING for stream in self._streams.values())
            unsent = bool(self._out)
        if self._closing and not unsent:
            return None
        poll = select.poll()
        poll.register(self._wakened, select.POLLIN)
        events = (0 if full else select.POLLIN) | (select.POLLOUT if unsent else 0)
        poll.register(self._connection, events)
        # What TLS has decrypted already is not seen by poll.
        buffered = not full and isinstance(self._connection, ssl.SSLSocket) and self._connection.pending()
        ready = dict(poll.poll(0 if buffered else None))
        with contextlib.suppress(BlockingIOError):
            self._wakened.recv(4096)
        state = ready.get(self._connection.fileno(), 0)
        if unsent:
            self._push()
        if full and state & (select.POLLHUP | select.POLLERR):
            return None
        if not full and (buffered or state & ~select.POLLOUT):
            return self._pull()
        return []

    def _push(self) -> None:
        with self._lock:
            piece = bytes(self._out[:_CHUNK])
        try:
            sent = self._connection.send(piece)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        with self._lock:
            del self._out[:sent]
            self._lock.notify_all()

    def _pull(self) -> list[Stream] | None:
        try:
            data = self._connection.recv(_CHUNK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return []
        if not data:
            return None
        self._in += data
        opened = []
        while len(self._in) >= 8:
            head, rest = struct.unpack_from(">II", self._in)
            length = rest & _LONGEST
            if len(self._in) < 8 + length:
                break
            body = bytes(self._in[8 : 8 + length])
            del self._in[: 8 + length]
            if head >> 31:
                if (stream := self._control(head >> 16 & 0x7FFF, head & 0xFFFF, rest >> 24, body)) is not None:
                    opened.append(stream)
            elif (known := self._streams.get(head)) is not None:
                self._fed(known, body, bool(rest >> 24 & _FIN))
        return opened

    def _fed(self, stream: Stream, data: bytes, ended: bool) -> None:
        with self._lock:
            if data:
                stream.feed(data)
            if ended:
                stream.feed(b"")

    def _control(self, version: int, kind: int, flags: int, body: bytes) -> Stream | None:
        if version != 3:
            raise Broken(f"SPDY of version {version}")
        if kind == _SYN_STREAM:
            number = struct.unpack_from(">I", body)[0] & 0x7FFFFFFF
            stream = Stream(self, number, self._headers(body[10:]), bool(flags & _FIN))
            self._streams[number] = stream
            reply = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
            self._queue(_SYN_REPLY, struct.pack(">I", number) + reply)
            return stream
        if kind == _RST_STREAM and (known := self._streams.pop(struct.unpack_from(">I", body)[0] & 0x7FFFFFFF, None)) is not None:
            known.feed(b"")
        if kind == _PING:
            self._queue(_PING, body)
        return None

    def _queue(self, kind: int, body: bytes) -> None:
        """A control frame, without waiting: this thread is the one that sends."""
        with self._lock:
            self._out += struct.pack(">HHI", 0x8003, kind, len(body)) + body

    def _headers(self, block: bytes) -> dict[str, str]:
        text = self._inflate.decompress(block)
        found, at = {}, 4
        for _ in range(struct.unpack_from(">I", text)[0]):
            name, at = _counted(text, at)
            found[name], at = _counted(text, at)
        return found


def _counted(text: bytes, at: int) -> tuple[str, int]:
    """A word behind its length, and where the next one begins."""
    (length,) = struct.unpack_from(">I", text, at)
    return text[at + 4 : at + 4 + length].decode(errors="replace"), at + 4 + length
