"""The tab: its two columns, and what happens when something in them is used.

Whatever depends on the model type (presets, settings, model files) comes from the registry. What is to be seen of a
training is made from the workshop every half a second, and only what changed goes to the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, wraps
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

import click
import gradio as gr

from cinderlora import Adapter, CinderloraError, Entry, Problem, SettingInfo, sync
from cinderlora.sd_scripts.installing import Installed

from . import views
from .server import is_loopback
from .views import Words, html
from .workshop import Board, Workshop

BEAT = 0.5  # seconds between two looks of a browser
ADVANCED = ("network_dim", "repeats", "save_every", "sample_every", "sample_prompt", "learning_rate")
# Values as browsers send them, as Gradio raises for a choice that has gone. And past its queue, which is late with its
# answer if one question is asked just as another is answered; only what raises `gr.Error` needs it.
DIRECT: dict[str, Any] = {"preprocess": False, "queue": False}
QUIET: dict[str, Any] = DIRECT | {"show_progress": "hidden", "api_visibility": "private"}

Props = dict[Any, Any]  # what `gr.update` takes, or what components get, by component


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show what cinderlora refuses."""

    @wraps(handler)
    def guarded(self: Tab, *values: Any) -> Any:
        try:
            return handler(self, *values)
        except CinderloraError as error:
            first, *_ = getattr(error, "problems", ()) or (Problem(error.code, error.params),)
            raise gr.Error(escape(" ".join(self.words.explained(first))), print_exception=False) from error

    return guarded


class Tab:
    """The tab in the `gr.Blocks` that is open. Its components are attributes, to listen to or to place elsewhere."""

    def __init__(self, workshop: Workshop, language: str) -> None:
        self.workshop, self.words = workshop, Words(language)
        self.extra = gr.State({})  # settings that a fix brought and that the form has no field for
        self.filled = gr.State("")  # the data set that name and trigger word were filled from
        self.wished = gr.JSON([], visible="hidden")  # what the form says, to be checked
        self.found = gr.JSON([False], visible="hidden")  # whether sd-scripts has been installed since
        self.shown = gr.State("")  # what this browser looks at: a run folder, "#" and an entry's number, or ""
        self.seen = gr.State({})  # what this browser was shown last
        with gr.Row(elem_classes="lt-columns"):
            with gr.Column(scale=5, min_width=320):
                self._draw_form()
            with gr.Column(scale=6, min_width=320):
                self._draw_training()
        self._wire_form()
        self._wire_training()

    # ---- the left column: what is wanted ----

    def _draw_form(self) -> None:
        words, adapters = self.words, self.workshop.registry.values()
        first = next(iter(adapters))
        infos = {info.name: info for info in first.settings()}
        self.kinds = {name: info.kind for name, info in infos.items()}
        self.labels = {name: info.label.get(words.language, info.label["en"]) for name, info in infos.items()}
        presets = self._presets(first)
        with gr.Group():
            self._heading("dataset")
            with gr.Row(elem_classes="lt-joined"):
                self.dataset = gr.Dropdown([], value=None, label=words("dataset"), elem_id="dataset", scale=5)
                self.refresh = gr.Button(words("refresh"), elem_id="dataset-refresh", scale=1, min_width=100)
            self.demo = gr.Button(words("demo"), elem_id="demo-pictures", visible=False)
            self.path = gr.Textbox(label=words("dataset_path"), elem_id="dataset-path", max_lines=1)
        with gr.Group():
            self._heading("character")
            with gr.Row():
                self.name = gr.Textbox(label=words("name"), elem_id="character-name", max_lines=1, min_width=140)
                self.trigger = gr.Textbox(label=words("trigger"), elem_id="trigger-word", max_lines=1, min_width=140)
        with gr.Group():
            self._heading("training")
            types = [(adapter.title, adapter.name) for adapter in adapters]
            self.model_type = gr.Dropdown(types, value=first.name, label=words("model_type"), elem_id="model-type")
            self.preset = gr.Dropdown(label=words("preset"), elem_id="preset", **presets)
            values = self._values(first, presets["value"])
            self.settings = {"steps": self._field(infos["steps"], values["steps"])}
            label, info = words("rehearsal"), words("rehearsal_info")
            self.rehearsal = gr.Checkbox(self.workshop.rehearsal, label=label, info=info, elem_id="rehearsal")
            with gr.Accordion(words("advanced"), open=False, elem_id="advanced"):
                for names in (ADVANCED[:2], ADVANCED[2:4], ADVANCED[4:]):
                    with gr.Row():
                        self.settings |= {name: self._field(infos[name], values[name]) for name in names}
                self._heading("models")
                found = self._models(first, {part.role: "" for adapter in adapters for part in adapter.type.components})
                self.components = {role: gr.Dropdown(elem_id=f"component-{role}", **found[role]) for role in found}
                self.models_refresh = gr.Button(words("models_refresh"), elem_id="models-refresh", size="sm")
        self.wish = [self.path, self.dataset, self.name, self.trigger, self.model_type, self.preset,
                     self.rehearsal, *self.settings.values(), *self.components.values()]  # fmt: skip

    def _heading(self, key: str) -> None:
        gr.HTML(html.heading(self.words(key)), elem_classes="lt-heading", padding=False)

    def _field(self, info: SettingInfo, value: Any) -> gr.Textbox | gr.Number:
        props: Props = {"label": self.labels[info.name], "elem_id": info.name.replace("_", "-"), "min_width": 140}
        if info.default is None or info.kind == "str":
            return gr.Textbox(value, placeholder=self.words("by_preset"), max_lines=3, **props)
        return gr.Number(value, info=self.words("off") if info.minimum == 0 else None, step=info.step or 1, **props)

    def _presets(self, adapter: Adapter) -> Props:
        fitting = adapter.fitting_preset()
        titles = {n: self.words.of("preset_title", preset.title or n) for n, preset in adapter.presets.items()}
        if fitting is not None:
            titles[fitting.name] = self.words("preset_fits", title=titles[fitting.name])
        return {"choices": [(title, name) for name, title in titles.items()], "value": fitting and fitting.name}

    def _values(self, adapter: Adapter, preset: str | None) -> Props:
        """The settings of the form as a preset has them, the type's own where it says nothing."""
        given, infos = adapter.presets.get(preset or ""), adapter.settings()
        values = {info.name: getattr(given, info.name, None) for info in infos}
        return {info.name: info.default if values[info.name] is None else values[info.name] for info in infos}

    def _models(self, adapter: Adapter, chosen: Mapping[str, str]) -> dict[str, Props]:
        """The drop-downs of all roles there are: those that this type wants with its files, the others hidden."""
        library = self.workshop.models(adapter)
        defaults = {role: str(file.path) for role, file in library.defaults().items()}
        props: dict[str, Props] = {role: {"visible": False, "choices": [("", "")], "value": ""} for role in chosen}
        for component in adapter.type.components:
            role, title = component.role, component.title
            choices = [(self.words("inside" if component.bundled else "none"), "")]
            for file in library.of(role):
                about = ", ".join(filter(None, (file.variant, file.precision)))
                choices.append((f"{file.path.name} ({about})" if about else file.path.name, str(file.path)))
            props[role] = {
                "visible": True,
                "choices": choices,
                "value": chosen[role] if chosen[role] in {path for _, path in choices[1:]} else defaults.get(role, ""),
                "label": title if component.required else self.words("optional", title=title),
            }
        return props

    def _wire_form(self) -> None:
        components = [*self.components.values()]
        self.refresh.click(self._find_datasets, self.dataset, [self.dataset, self.demo], **DIRECT)
        gr.on(None, self._find_datasets, None, [self.dataset, self.demo], **QUIET)  # when the page is loaded
        self.demo.click(self._draw_demo, None, [self.dataset, self.demo])
        named = [self.filled, self.name, self.trigger]
        for field in (self.path, self.dataset):
            field.change(self._choose_dataset, [self.path, self.dataset, self.filled], named, **QUIET)
        settings = [self.extra, *self.settings.values()]
        self.model_type.change(self._choose_type, self.model_type, [self.preset, *settings, *components], **QUIET)
        self.preset.change(self._choose_preset, [self.model_type, self.preset], settings, **QUIET)
        self.models_refresh.click(self._find_models, [self.model_type, *components], components, **DIRECT)
        gr.on([field.change for field in self.wish], lambda *wish: [*wish], self.wish, self.wished, **QUIET)
        self.start.click(self._start, [self.extra, *self.wish], self.shown, concurrency_limit=None, preprocess=False)

    def _find_datasets(self, chosen: str | None = None) -> Props:
        entries = self.workshop.datasets()
        choices = [(views.dataset_label(entry, self.words), path) for path, entry in entries.items()]
        info = self.words("datasets_in", count=len(entries), folder=self.workshop.places.datasets)
        found = gr.update(choices=choices, value=chosen if chosen in entries else None, info=info)
        return {self.dataset: found, self.demo: gr.update(visible=not entries)}

    @told
    def _draw_demo(self) -> Any:
        return self._find_datasets(str(self.workshop.draw_demo()))

    def _choose_dataset(self, path: str, chosen: str | None, filled: str) -> tuple[Any, ...]:
        where = path.strip() or chosen or ""
        if where in {filled, ""}:  # Gradio tells it twice, and somebody may be typing another name already
            return where, gr.skip(), gr.skip()
        entry, name = self.workshop.datasets().get(where), Path(where).name
        return (where, entry.name, entry.trigger) if entry else (where, name, name)

    def _choose_type(self, model_type: str) -> Props:
        presets = self._presets(self.workshop.registry[model_type])
        rest = self._choose_preset(model_type, presets["value"]) | self._find_models(model_type)
        return {self.preset: gr.update(**presets), **rest}

    def _choose_preset(self, model_type: str, preset: str | None) -> Props:
        values = self._values(self.workshop.registry[model_type], preset)
        return {self.extra: {}, **{field: values[name] for name, field in self.settings.items()}}

    def _find_models(self, model_type: str, *chosen: str) -> Props:
        kept = dict(zip_longest(self.components, chosen, fillvalue=""))
        props = self._models(self.workshop.registry[model_type], kept)
        return {self.components[role]: gr.update(**prop) for role, prop in props.items()}

    def _wished(self, *values: Any) -> Props:
        """What the form says, for the workshop."""
        extra, path, dataset, name, trigger, model_type, preset, rehearsal, *rest = values
        settings = {name: self._meant(name, value) for name, value in zip(self.settings, rest, strict=False)}
        return {
            "dataset": path or dataset or "", "name": name, "trigger": trigger, "model_type": model_type,
            "preset": preset, "rehearsal": rehearsal, "settings": settings | extra,
            "models": dict(zip(self.components, rest[len(settings):], strict=True)),
        }  # fmt: skip

    def _meant(self, name: str, value: Any) -> Any:
        """A field's value as a setting. An empty one leaves it to the preset; what is no number is refused later."""
        if self.kinds[name] in {"int", "float"}:
            with suppress(TypeError, ValueError):
                number = float(value)
                return int(number) if number.is_integer() and self.kinds[name] == "int" else number
        return value or None

    @told
    def _start(self, *values: Any) -> str:
        return f"#{self.workshop.start(self._wished(*values)).id}"

    def _draw_check(self, extra: Props, values: list[Any]) -> Any:
        """What is wrong with what the form says, with buttons that mend it."""
        words, wish = self.words, self._wished(extra, *values) if values else {}
        if not wish.get("dataset"):
            return gr.HTML(html.lines("good", words("choose_dataset")), padding=False)
        report = self.workshop.check(wish)
        for number, problem in enumerate(report.problems):
            with gr.Row(elem_classes="lt-fixable"):
                gr.HTML(html.problem(words, problem), min_width=200, padding=False)
                if problem.changes:
                    label = words("apply", changes=words.changes(problem.changes, self.labels))
                    key = f"{problem.code} {problem.params} {label}"  # one drawn anew is the one that was pressed
                    fix = gr.Button(label, elem_id=f"fix-{number}", key=key, size="sm", scale=0, min_width=180)
                    changed = [self.extra, *self.settings.values()]
                    fix.click(partial(self._apply, problem.changes), self.extra, changed, key=key)
                if problem.code == "trainer_not_found":
                    install = gr.Button(words("install"), elem_id="install", key="install", size="sm", scale=0)
                    install.click(self.workshop.install, key="install")
        return gr.HTML(html.cost(words, report, words.changes(extra, self.labels)), padding=False)

    def _apply(self, changes: Props, extra: Props) -> Props:
        fields = {self.settings[name]: value for name, value in changes.items() if name in self.settings}
        return {self.extra: extra | {n: v for n, v in changes.items() if n not in self.settings}, **fields}

    # ---- the right column: what goes on ----

    def _draw_training(self) -> None:
        words = self.words
        with gr.Row():
            self.start = gr.Button(words("start"), variant="primary", elem_id="start", min_width=160)
            self.stop = gr.Button(words("stop"), variant="stop", elem_id="stop", interactive=False, min_width=100)
        with gr.Column(elem_id="problems"):
            again = [self.wished.change, self.extra.change, self.found.change, self.refresh.click]
            again += [self.models_refresh.click]
            gr.render([self.extra, self.wished], again, queue=False, show_progress="hidden")(self._draw_check)
        with gr.Group():
            self._heading("run")
            self.run = gr.HTML(elem_id="run", padding=False)
            with gr.Row(equal_height=True):
                self.try_again = gr.Button(visible=False, variant="primary", elem_id="try-again")
                self.resume = gr.Button(words("resume"), visible=False, elem_id="resume")
            self.result = gr.Textbox(label=words("result"), elem_id="result", visible=False, buttons=["copy"])
            self.open_folder = gr.Button(words("open_folder"), visible=False, elem_id="open-folder", size="sm")
            gallery = partial(gr.Gallery, visible=False, buttons=["download", "fullscreen"], height="auto")
            self.newest = gallery(label=words("newest"), elem_id="newest-sample", columns=1)
            drawn = partial(gr.HTML, show_label=True, container=True, visible=False)
            self.curve = drawn(label=words("curve"), elem_id="loss-curve")
            self.log = drawn(label=words("log"), elem_id="log")
        self.samples = gallery(label=words("samples"), elem_id="samples", columns=4)
        self.installation = gr.HTML(elem_id="installation", visible=False)
        with gr.Accordion(words("queue"), elem_id="queue-panel"):
            self.queue_note = gr.HTML(elem_id="queue-note")
            self.queue = gr.Radio(label=words("queue"), show_label=False, elem_id="queue")
            with gr.Row():
                button = partial(gr.Button, size="sm", min_width=90, visible=False)
                self.acts = {act: button(words(act), elem_id=f"queue-{act}") for act in QUEUE_ACTS}
        with gr.Accordion(words("history"), open=False, elem_id="history-panel"):
            self.history = gr.Radio(label=words("history"), show_label=False, elem_id="history")
        names = ("run", "try_again", "resume", "result", "open_folder", "newest", "curve", "log", "samples", "stop",
                 "installation", "found", "queue_note", "queue", "history")  # fmt: skip
        self.live = {name: getattr(self, name) for name in names} | self.acts

    def _wire_training(self) -> None:
        gr.Timer(BEAT).tick(self._look, [self.shown, self.seen], [self.seen, *self.live.values()], **QUIET)
        for button, act in ((self.stop, "stop"), (self.try_again, "try_again"), (self.resume, "resume")):
            handler = partial(self._with_run, getattr(self.workshop, act))
            button.click(handler, self.shown, self.shown, concurrency_limit=None)
        self.open_folder.click(self._open_folder, self.shown, None)
        self.history.input(lambda chosen: chosen, self.history, self.shown, **DIRECT)
        for act, button in self.acts.items():
            button.click(partial(self._change_queue, act), self.queue, self.queue, preprocess=False)

    def _look(self, shown: str, seen: dict[str, Props]) -> Props:
        """What changed since this browser looked last."""
        view = self._view(shown)
        return {self.seen: view, **{self.live[n]: gr.update(**view[n]) for n in self.live if view[n] != seen.get(n)}}

    def _view(self, shown: str) -> dict[str, Props]:
        """What the components show, by name; who has nothing to show is hidden."""
        board, words = self.workshop.board(), self.words
        folder, entry = self._folder(board, shown), board.entries.get(int(shown[1:])) if shown[:1] == "#" else None
        view: dict[str, Props] = {"run": {"value": self._waiting(entry)}, "stop": {"interactive": False}}
        try:
            view |= self._story(folder) if folder else {}
        except CinderloraError as error:  # somebody has removed it
            view["run"] = {"value": html.problem(words, Problem(error.code, error.params))}
        coming = [e for e in board.entries.values() if not e.is_ended]
        note = words("queue_paused") if board.halted else "" if coming else words("queue_empty")
        note += " ".join(words.explained(board.problem)) if board.problem else ""
        runs = [(views.run_label(run, words), str(run.folder)) for run in board.runs.values()]
        view |= {
            "queue": {"choices": [(views.entry_label(e, words), e.id) for e in coming], "visible": bool(coming)},
            "queue_note": shown_if(escape(note)),
            "history": {"choices": [(words("current"), ""), *runs]},
            "found": {"value": [isinstance(self.workshop.installation, Installed)]},
            "installation": shown_if(html.installation(words, now) if (now := self.workshop.installation) else ""),
            "pause": {"visible": not board.halted and bool(coming)},
            "continue": {"visible": board.halted},
            **{act: {"visible": bool(coming)} for act in ("up", "hold", "remove")},
        }
        return {name: view.get(name, {"visible": False}) for name in self.live}

    def _folder(self, board: Board, shown: str) -> Path | None:
        """The run folder that a browser looks at. It can only name what is listed."""
        if shown.startswith("#"):
            entry = board.entries.get(int(shown[1:]))
            return entry.run if entry else None
        return board.current if not shown else Path(shown) if Path(shown) in board.runs else None

    def _waiting(self, entry: Entry | None) -> Any:
        if entry is None:
            return html.lines("good", self.words("nothing"))
        problem = html.problem(self.words, entry.problem) if entry.problem else ""
        return html.lines(entry.state, views.entry_label(entry, self.words)) + problem

    def _story(self, folder: Path) -> dict[str, Props]:
        words, story = self.words, self.workshop.story(folder)
        status = story.status()
        samples = {place: self.workshop.picture(path) for place, path in story.samples.items()}
        pictures = [(str(path), words("sample_step", step=step)) for (step, _), path in samples.items() if path]
        changes = words.changes(status.diagnosis.changes, self.labels) if status.diagnosis else ""
        again = words("try_again", changes=changes) if changes else words("try_again_same")
        return {
            "run": {"value": html.run(words, story, status)},
            "try_again": {"value": again, "visible": status.diagnosis is not None},
            "resume": {"visible": bool(status.checkpoints) and status.state in {"failed", "stopped", "lost"}},
            "result": shown_if(str(status.result.lora) if status.result else ""),
            "open_folder": {"visible": status.result is not None},
            "newest": shown_if(pictures[-1:]),
            "curve": shown_if(views.curve_html(story.curve, words)),
            "log": shown_if(views.log_html(status.log, words) if status.log else ""),
            "samples": shown_if(pictures if len(pictures) > 1 else []),
            "stop": {"interactive": status.state == "running"},
        }

    @told
    def _with_run(self, act: Callable[[Path], Entry | None], shown: str) -> str:
        """Do something with the run that a browser looks at, and look at the entry that comes of it, if one does."""
        folder = self._folder(self.workshop.board(), shown)
        entry = act(folder) if folder else None
        return f"#{entry.id}" if entry else shown

    @told
    def _change_queue(self, act: str, number: Any) -> Any:
        if number is None and act not in {"pause", "continue"}:
            raise gr.Error(self.words("choose_first"), print_exception=False)
        QUEUE_ACTS[act](self.workshop.queue, number)
        return None if act == "remove" else gr.skip()

    def _open_folder(self, shown: str, request: gr.Request) -> None:
        folder = self._folder(self.workshop.board(), shown)
        result = self.workshop.story(folder).status().result if folder else None
        if result is not None and not (is_loopback(request.client.host) and click.launch(str(result.lora.parent)) == 0):
            gr.Info(escape(self.words("opened_not", path=result.lora.parent)))


QUEUE_ACTS: dict[str, Callable[[sync.Queue, int], object]] = {
    "up": lambda queue, number: queue.move(number, to=1),
    "hold": lambda queue, number: (queue.release if queue.entry(number).state == "held" else queue.hold)(number),
    "remove": lambda queue, number: queue.remove(number),
    "pause": lambda queue, number: queue.pause(),
    "continue": lambda queue, number: queue.start(),
}


def shown_if(value: Any) -> Props:
    return {"value": value, "visible": bool(value)}
