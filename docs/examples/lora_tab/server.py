"""The tab as a web application of its own: who may come in, and a page for each language."""

from __future__ import annotations

import hmac
import os
from http.cookies import SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .workshop import Workshop

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

__all__ = ["Guard", "application", "is_loopback"]

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
        if same(query.pop("token", ""), token):
            answer = RedirectResponse(f"{scope['path']}?{urlencode(query)}".rstrip("?"), 303)
            answer.set_cookie(cookie, token, httponly=True, samesite="strict")
            return answer
        known = SimpleCookie(headers.get("cookie", "")).get(cookie)
        is_known = known is not None and same(known.value, token)
        return None if is_known else PlainTextResponse("Open the address with the token that was printed.", 401)


def application(workshop: Workshop) -> FastAPI:
    """/en/ and /de/, and at / the one that the browser likes better. To be put behind a `Guard`."""
    # Nothing is told to the network, nor asked of it.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ["GRADIO_TEMP_DIR"] = workshop.pictures.name  # or it would serve the files of other apps
    import gradio as gr
    from fastapi import FastAPI

    from . import STYLE
    from .tab import Tab
    from .views import LANGUAGES, Words, html

    app = FastAPI(openapi_url=None)
    theme = gr.themes.Default(primary_hue="orange", font=["system-ui", "sans-serif"], font_mono=["monospace"])

    async def begin(request: Request) -> Response:
        language = preferred(request.headers.get("accept-language", ""), [*LANGUAGES])
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
            show_error=False, theme=theme, css_paths=[STYLE],
            head=f"<script>document.documentElement.lang = '{language}'</script>",
        )  # fmt: skip
    return app


def preferred(accept_language: str, languages: list[str]) -> str:
    """The first of a browser's languages that is one of ours. Browsers name them in the order of their liking."""
    named = (part.strip().lower()[:2] for part in accept_language.split(","))
    return next((language for language in named if language in languages), languages[0])


def same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
