"""Who may call the page's server: the page itself, in the browser of the person who started it.

Three things keep others out. Other sites' pages: Host must be the server's own name (against DNS rebinding) and Origin, where a
browser sends one, its own origin. Other users of the machine: the cookie of this run, which its printed address sets.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "demo-web"
_HEADERS = {
    # Everything is the server's own; nothing is loaded from, sent to or framed by anything else.
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """One run's guard. word: in the printed address; port: on which the server listens."""

    def __init__(self, port: int, word: str | None = None) -> None:
        self.word = word or secrets.token_urlsafe(16)
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    def refusal(self, request: Request) -> Response | None:
        """Why a request is refused, or None. The first visit with the run's word gets the cookie."""
        host = request.headers.get("host", "")
        if host not in self._hosts:
            return PlainTextResponse("this server has another name\n", 421)
        origin = request.headers.get("origin")
        if origin is not None and origin not in {f"http://{name}" for name in self._hosts}:
            return PlainTextResponse("another site's page may not call this server\n", 403)
        # Browsers that are told of a request's site say so themselves; a link from elsewhere to the page is fine.
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") and request.url.path != "/":
            return PlainTextResponse("another site's page may not call this server\n", 403)
        given = request.query_params.get("key")
        if request.url.path == "/" and given is not None and secrets.compare_digest(given.encode(), self.word.encode()):
            # The word leaves the address bar, which the projector shows.
            response = RedirectResponse("/", 303)
            response.set_cookie(self.cookie, self.word, httponly=True, samesite="strict")
            return response
        if not secrets.compare_digest(request.cookies.get(self.cookie, "").encode(), self.word.encode()):
            return PlainTextResponse("open the address that `demo web` has printed, with its key\n", 403)
        return None

    @property
    def cookie(self) -> str:
        """Its name: cookies of 127.0.0.1 are shared by all ports."""
        return f"{COOKIE}-{min(self._hosts).rpartition(':')[2]}"


class Guarded:
    """ASGI middleware: an application behind a guard. It hands streams on as they are, piece by piece."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await (self._guard.refusal(Request(scope)) or self._app)(scope, receive, with_headers)
