"""`ui`: the LoRA tab in the browser. The tab is docs/examples/lora_tab, which is published as `cinderlora_ui`."""

from __future__ import annotations

import secrets
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from cinderlora.cli.terminal import Terminal

if TYPE_CHECKING:
    from cinderlora.config import Config

__all__ = ["ui"]

CHECKOUT = Path(__file__).parents[3] / "docs/examples/lora_tab/__init__.py"
WAITING = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">
<meta name="viewport" content="width=device-width"><title>LoRA</title>
<style>:root {color-scheme: light dark} body {font: 18px system-ui, sans-serif; margin: 20vh 2rem; text-align: center}
</style><h1>cinderlora</h1><p role="status">…</p>"""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets in others, who need the token.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
@click.option("--token", metavar="TEXT", help="The token; a new one each time else. From this machine none is needed.")
@click.option("--no-browser", is_flag=True, help="Open no browser, print the address only.")
@click.option("--rehearsal", is_flag=True, help="Begin with rehearsals: no GPU, no models.")
@click.option("--folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Everything lies in here.")
@click.option(
    "--allow", "allowed", type=click.Path(path_type=Path), multiple=True, metavar="FOLDER",
    help="Data sets may lie in here, too. Can be given several times.",
)  # fmt: skip
@click.pass_obj
def ui(
    terminal: Terminal,
    host: str,
    port: int,
    token: str | None,
    no_browser: bool,
    rehearsal: bool,
    folder: Path | None,
    allowed: tuple[Path, ...],
) -> None:
    """Train in the browser: choose a data set and settings, start, watch, queue.

    Trainings go on when this is ended with Ctrl-C, and are there again when it is started. Only this machine gets in
    unless --host says otherwise; then whoever has the address with its token.
    """
    from cinderlora.errors import CinderloraError

    tab = _tab()
    workshop = tab.Workshop(_places(tab, terminal.config, folder, allowed), terminal.registry, rehearsal=rehearsal)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise CinderloraError("ui_address", host=host, port=port, why=error.strerror or str(error)) from error
    if not tab.is_loopback(host):
        token = token or secrets.token_urlsafe(16)
    name = socket.gethostname() if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host  # noqa: S104
    address = f"http://{name}:{listening.getsockname()[1]}/" + (f"?token={quote(token)}" if token else "")
    terminal.print(terminal.say("ui_address_is", address=address))
    if not no_browser:
        webbrowser.open(address)
    _serve(listening, lambda: tab.Guard(tab.application(workshop), token))


def _places(tab: Any, config: Config, folder: Path | None, allowed: tuple[Path, ...]) -> Any:
    """Where things lie on this machine; with a folder, what is made lies in there."""
    generated = config.comfyui / "output/character_training" if config.comfyui else Path("datasets")
    known = {"models": config.models, "sd_scripts": config.sd_scripts, "sd_scripts_python": config.sd_scripts_python}
    if folder is not None:
        folder = folder.expanduser().absolute()
        made = {"datasets": folder / "datasets", "output": folder / "loras"}
        made |= {"runs": folder / "runs", "queue": folder / "queue"}
    else:
        made = {"datasets": config.datasets or generated, "output": config.loras or Path("loras")}
        made |= {"runs": config.runs} if config.runs else {}
    prefix = None if config.output_prefix == "cg_" else config.output_prefix  # cg_ is everybody's
    return tab.Places(**made, **known, allowed=tuple(path.expanduser() for path in allowed), output_prefix=prefix)


def _tab() -> Any:
    """The tab's package. A checkout has it among the examples, whatever was installed of it."""
    from cinderlora.errors import CinderloraError

    lacking = [name for name in ("gradio", "uvicorn", "PIL", "numpy") if find_spec(name) is None]
    if lacking:
        raise CinderloraError("extra_missing", what="cinderlora ui", packages=lacking, extra="ui")
    if not CHECKOUT.is_file():
        return import_module("cinderlora_ui")
    spec = spec_from_file_location("cinderlora_ui", CHECKOUT, submodule_search_locations=[str(CHECKOUT.parent)])
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _serve(listening: socket.socket, build: Callable[[], Any]) -> None:
    """Serve until Ctrl-C. Gradio takes seconds to import: until then a page is shown that asks again."""
    import anyio
    import uvicorn
    from anyio.to_thread import run_sync
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse
    from starlette.routing import Mount

    built: list[Any] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        page = built[0] if built else HTMLResponse(WAITING, 503, {"Retry-After": "1"})
        await page(scope, receive, send)

    async def live() -> None:
        guard = await run_sync(build)
        async with guard.app.router.lifespan_context(guard.app):
            built.append(guard)
            await anyio.sleep_forever()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live)
            yield
            tasks.cancel_scope.cancel()

    app = Starlette(routes=[Mount("/", app=answer)], lifespan=lifespan)
    # Browsers keep connections open, which would hold up the end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
