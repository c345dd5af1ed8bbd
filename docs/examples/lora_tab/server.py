"""The tab as a web application of its own: who may come in, and a page for each language."""

from __future__ import annotations

import hmac
import json
import os
from http.cookies import SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .workshop import Workshop

CLOSED = ("/upload", "/proxy", "/stream", "/component_server")
"""Routes of Gradio's that take files, or fetch from elsewhere: the tab needs none of them."""


class Guard:
    """Lets in who may come in. Without a token that is this machine alone, by a name it has for itself: a name that an
    attacker's DNS points here is not for us, and neither is what another site's page sends."""

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app = app
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None and scope.get("method", "GET") != "GET":
            body = await Request(scope, receive).body()
            receive, refusal = again(body, receive), PlainTextResponse("Not this.", 403) if is_forged(body) else None
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return PlainTextResponse("This server is for its own machine.", 403)
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("Not from another site.", 403)
        if any(f"/gradio_api{route}" in scope["path"] for route in CLOSED):
            return PlainTextResponse("Not here.", 403)
        return None if self.token is None else self._stranger(scope, headers, self.token)

    def _stranger(self, scope: Scope, headers: Headers, token: str) -> Response | None:
        cookie = f"cinderlora-{(scope.get('server') or ('', 0))[1]}"  # a machine's ports have their cookies in common
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        if hmac.compare_digest(query.pop("token", "").encode(), token.encode()):
            answer = RedirectResponse(f"{scope['path']}?{urlencode(query)}".rstrip("?"), 303)
            answer.set_cookie(cookie, token, httponly=True, samesite="strict")
            return answer
        known = SimpleCookie(headers.get("cookie", "")).get(cookie)
        is_known = known is not None and hmac.compare_digest(known.value.encode(), token.encode())
        return None if is_known else PlainTextResponse("Open the address with the token that was printed.", 401)


def application(workshop: Workshop) -> Starlette:
    """/en/ and /de/, and at / the one that the browser likes better. To be put behind a `Guard`."""
    # Nothing is told to the network, and no files of other apps are served.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=workshop.pictures.name)
    import gradio as gr
    from fastapi import FastAPI

    from . import STYLE
    from .tab import Tab
    from .views import LANGUAGES, Words, html

    app = FastAPI(openapi_url=None)
    theme = gr.themes.Default(primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["monospace"])

    async def begin(request: Request) -> Response:
        named = [part.strip().lower()[:2] for part in request.headers.get("accept-language", "").split(",")]
        language = next(name for name in (*named, *LANGUAGES) if name in LANGUAGES)
        return RedirectResponse(f"/{language}/", headers={"Vary": "Accept-Language"})

    app.add_route("/", begin)
    app.add_route("/favicon.ico", lambda _: Response(status_code=204))
    for language in LANGUAGES:
        words = Words(language)
        with gr.Blocks(title=words("title"), analytics_enabled=False) as blocks:
            gr.HTML(html.header(words, LANGUAGES), elem_id="language")
            Tab(workshop, language)
        gr.mount_gradio_app(
            app, blocks, f"/{language}", root_path=f"/{language}", footer_links=[], run_history=False, ssr_mode=False,
            show_error=False, theme=theme, css_paths=[STYLE], head=str(html.spoken(language)),
        )  # fmt: skip
    return app


def is_forged(body: bytes) -> bool:
    """Files as the values of fields: Gradio would read whatever path or address they name, and the tab has none."""
    try:
        return "gradio.FileData" in json.dumps(json.loads(body or "{}"))
    except (ValueError, RecursionError):
        return True


def again(body: bytes, receive: Receive) -> Receive:
    """What was read, to be read once more."""
    first = [{"type": "http.request", "body": body}]

    async def told() -> Message:
        return first.pop() if first else await receive()

    return told


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
