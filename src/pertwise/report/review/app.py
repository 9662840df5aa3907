"""The routes of the review page, and who may call them."""

from __future__ import annotations

import json
import secrets
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pertwise.config import user_settings
from pertwise.errors import PertwiseError
from pertwise.report.review.session import Review, StaleError

#: Largest request, in bytes.
BODY = 64 << 10
#: Names under which a browser reaches this machine itself; any other is a rebound address.
_HERE = frozenset({"127.0.0.1", "localhost", "::1"})
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def make_app(review: Review, token: str) -> ASGIApp:
    """The application, under ``/TOKEN/``; every other address is answered with 403."""

    async def state(request: Request) -> Response:
        return _json(await run_in_threadpool(review.view, request.query_params.get("version", "")))

    async def candidates(request: Request) -> Response:
        asked = request.query_params
        return _json(
            await run_in_threadpool(
                review.candidates,
                asked.get("q", "")[:200],
                asked.get("instead", "")[:200],
                asked.get("order", ""),
            )
        )

    async def preview(request: Request) -> Response:
        return _json(await run_in_threadpool(review.preview, await _body(request)))

    async def change(request: Request) -> Response:
        return _json(await run_in_threadpool(review.change, await _body(request)))

    async def stale(_: Request, error: Exception) -> Response:
        now = await run_in_threadpool(review.view)
        return _json({"error": str(error), "now": now}, 409)

    async def refused(_: Request, error: Exception) -> Response:
        return _json({"error": str(error)}, 400)

    async def too_much(_: Request, error: Exception) -> Response:
        return _json({"error": str(error)}, 413)

    async def broken(_: Request, error: Exception) -> Response:
        return _json({"error": f"internal error ({type(error).__name__}); nothing was saved"}, 500)

    app = Starlette(
        routes=[
            *(_file(name) for name in ("review.html", "review.css", "review.js", "table.js")),
            Route("/api/state", state),
            Route("/api/candidates", candidates),
            Route("/api/preview", preview, methods=["POST"]),
            Route("/api/change", change, methods=["POST"]),
        ],
        exception_handlers={
            StaleError: stale,
            PertwiseError: refused,
            _TooMuchError: too_much,
            Exception: broken,
        },
    )
    return Guard(app, token)


class _TooMuchError(Exception):
    """A request that is larger than any that the page sends."""


class Guard:
    """Lets through only requests of this machine's own page: token, Host, Origin, kind of body."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        first, slash, rest = scope["path"].removeprefix("/").partition("/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope["method"], headers, first if slash else "")
        if refusal is not None:
            words, status = refusal
            answer = PlainTextResponse(words, status)
            await answer(scope, receive, guarded)
            return
        inner = {**scope, "path": "/" + rest, "raw_path": b"/", "root_path": ""}
        await self._app(inner, receive, guarded)

    def _refusal(self, method: str, headers: Headers, token: str) -> tuple[str, int] | None:
        host = headers.get("host", "")
        if _name(f"//{host}") not in _HERE:
            return "This page answers only to 127.0.0.1 and localhost.", 403
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self._token):
            return "Open the whole address that `pertwise review` printed.", 403
        if method == "POST":
            origin = headers.get("origin", "")
            if urlsplit(origin).netloc != host or not origin.startswith("http://"):
                return "Changes are taken from the page itself only.", 403
            if headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return "Changes are taken from the page itself only.", 403
            if headers.get("content-type", "").split(";")[0].strip() != "application/json":
                return "Changes are sent as JSON.", 415
        elif method not in ("GET", "HEAD"):
            return "Not allowed.", 405
        return None


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _file(name: str) -> Route:
    body = (files("pertwise.report.review") / "static" / name).read_bytes()
    kind = _KINDS[name.rpartition(".")[2]]
    if kind == "text/html":
        body = body.replace(b'data-theme="light"', f'data-theme="{user_settings().theme}"'.encode())

    async def send(_: Request) -> Response:
        return Response(body, media_type=kind)

    return Route("/" if kind == "text/html" else f"/{name}", send)


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for block in request.stream():
        data += block
        if len(data) > BODY:
            raise _TooMuchError(f"a change may have {BODY >> 10} kB")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PertwiseError("the request is no JSON object")
    return value


def _json(value: Any, status: int = 200) -> Response:
    # ASCII only: half a surrogate pair in a plan must not break the answer.
    return Response(json.dumps(value, allow_nan=False), status, media_type="application/json")
