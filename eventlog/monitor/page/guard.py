"""Access to the page: for who knows the token, by this machine's own name, from the page itself.

Others on the machine do not know the token. Pages of other origins cannot read answers, and their
requests carry another `Origin`; a name of theirs that is made to mean this machine is another
`Host`. All of them get a refusal that says nothing of the logs.

The browser sends the cookie with the token to every port of this machine that it visits: do not
open pages of users here whom you do not trust while it is shown.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Lets requests through to `app` that may be answered."""

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._cookie = f"eventlog-{next(iter(hosts)).rpartition(':')[2]}"
        """Its name has the port: cookies of one machine are shared by all its ports."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # its start and end
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(scope) or self._welcome(scope) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            return PlainTextResponse("this page has another address", 421)
        origin = headers.get("origin")
        is_read = scope["method"] in ("GET", "HEAD")
        if (origin is not None or not is_read) and origin != f"http://{host}":
            return PlainTextResponse("the request comes from another page", 403)
        if not self._knows_token(headers, scope):
            return PlainTextResponse(
                "open the address that `eventlog ui` printed, with its token", 401
            )
        return None

    def _knows_token(self, headers: Headers, scope: Scope) -> bool:
        given = QueryParams(scope["query_string"]).get("token")
        if given is None:
            try:
                cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
            except CookieError:
                cookie = None
            given = "" if cookie is None else cookie.value
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _welcome(self, scope: Scope) -> Response | None:
        """Put a token of the address away into a cookie, so that it stands in no history."""
        if "token" not in QueryParams(scope["query_string"]):
            return None
        response = RedirectResponse(scope["path"], 303)
        response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
        return response
