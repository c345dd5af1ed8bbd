# /// script
# requires-python = ">=3.11"
# dependencies = ["cinderlora[rehearsal]", "PySide6-Essentials>=6.8"]
# ///
"""A window that trains: choose, start, watch, stop. The README beside it says what to copy.

python window.py --datasets ~/datasets --output ~/loras
"""

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Qt, QThread, Signal

import cinderlora
from cinderlora import sync


class Following(QThread):
    """Begins a training, or finds one, and hands on what it tells: what takes time is done off the window's thread."""

    began, told, refused = Signal(object, object), Signal(object), Signal(str)

    def __init__(self, begin: Callable[[], sync.Run]) -> None:
        super().__init__()
        self._begin = begin
        self._events: sync.Events | None = None

    def run(self) -> None:
        try:
            run = self._begin()
            status = run.status  # all that was told so far, in one piece
            self.began.emit(run, status)
            self._events = run.events(status.seq if status.state == "running" else status.seq - 1)  # its end, at least
            for event in self._events:
                self.told.emit(event)
        except cinderlora.CinderloraError as error:
            self.refused.emit(str(error))

    def leave(self) -> None:
        """Stop listening. The training goes on."""
        while not self.wait(20):
            if self._events is not None:
                self._events.close()


class Window(QtWidgets.QWidget):
    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.registry = cinderlora.Registry.from_installed()
        real = options.sd_scripts
        self.trainer = cinderlora.SdScripts(real) if real else cinderlora.SdScripts.rehearsal()
        self.training: sync.Run | None = None
        self.following: Following | None = None
        self._lay_out()
        self.type.currentIndexChanged.connect(self.choose_type)
        self.dataset.currentIndexChanged.connect(lambda: self.trigger.setText(self.dataset.currentData().trigger))
        self.start.clicked.connect(self.begin)
        self.stop.clicked.connect(self.end)
        for name, adapter in self.registry.items():
            self.type.addItem(adapter.title, name)
        for entry in cinderlora.list_datasets(options.datasets):
            self.dataset.addItem(f"{entry.name} ({entry.pictures} pictures, {entry.state})", entry)
        self.show_end("Nothing is running.")
        running = [run for run in sync.runs(options.runs, registry=self.registry) if run.state == "running"]
        if running:
            self.follow(lambda: running[0])  # it was closed, or crashed, while this one trained

    def _lay_out(self) -> None:
        self.setWindowTitle("Train a character")
        self.dataset, self.type, self.preset = (QtWidgets.QComboBox() for _ in range(3))
        self.trigger, self.steps = QtWidgets.QLineEdit(), QtWidgets.QSpinBox(minimum=1, maximum=1_000_000, value=1500)
        self.start, self.stop = QtWidgets.QPushButton("Start"), QtWidgets.QPushButton("Stop")
        self.sample, self.state = QtWidgets.QLabel(), QtWidgets.QLabel(wordWrap=True)
        self.sample.setMinimumHeight(256)
        self.state.setTextFormat(Qt.TextFormat.PlainText)  # names and paths are nobody's HTML
        self.bar, self.log = QtWidgets.QProgressBar(), QtWidgets.QPlainTextEdit(readOnly=True, maximumBlockCount=2000)
        form, column, columns = QtWidgets.QFormLayout(), QtWidgets.QVBoxLayout(), QtWidgets.QHBoxLayout(self)
        fields = self.dataset, self.type, self.preset, self.trigger, self.steps
        for label, field in zip(("Data set", "Model", "Preset", "Trigger word", "Steps"), fields, strict=True):
            form.addRow(label, field)
        for widget in (self.start, self.stop, self.sample):
            form.addRow(widget)
        for shown in (self.state, self.bar, self.log):
            column.addWidget(shown)
        columns.addLayout(form, 1)
        columns.addLayout(column, 2)
        self.resize(980, 560)

    def choose_type(self) -> None:
        self.preset.clear()
        for preset in self.registry[self.type.currentData()].presets.values():
            self.preset.addItem(preset.title or preset.name, preset.name)

    def begin(self) -> None:
        dataset, adapter, options = self.dataset.currentData(), self.registry[self.type.currentData()], self.options
        wish = {"name": dataset.name, "dataset": dataset.path, "output": options.output, "steps": self.steps.value()}
        wish |= {"trigger": self.trigger.text(), "preset": self.preset.currentData()}

        def start() -> sync.Run:
            """In the other thread: nothing of the window is touched here."""
            models = adapter.scan_models(options.models).defaults() if options.models else None
            job = adapter.job(models=models, **wish)
            adapter.check(job, self.trainer, runs=options.runs).raise_for_errors()
            with sync.launch(
                adapter.plan(job, self.trainer), runs=options.runs, detach=True, registry=self.registry
            ) as run:
                return run

        self.log.clear()
        self.state.setText("Looking at the job ...")
        self.follow(start)

    def follow(self, begin: Callable[[], sync.Run]) -> None:
        self.start.setEnabled(False)
        self.following = Following(begin)
        self.following.began.connect(self.show_run)
        self.following.told.connect(self.hear)
        self.following.refused.connect(self.show_end)
        self.following.start()

    def show_run(self, run: sync.Run, status: cinderlora.Status) -> None:
        self.training = run
        self.stop.setEnabled(True)
        self.log.setPlainText("\n".join(status.log))
        self.advance(status.step or 0, status.total or 0, status.loss, status.eta)
        if status.sample is not None:
            self.show_sample(status.sample)

    def hear(self, event: cinderlora.Event) -> None:
        match event:
            case cinderlora.Progress(step=step, total=total, loss=loss, eta=eta):
                self.advance(step, total, loss, eta)
            case cinderlora.Phase(name=name):
                self.state.setText(name.replace("_", " ").capitalize())
            case cinderlora.SampleSaved(path=path):
                self.show_sample(path)
            case cinderlora.Log(text=text) | cinderlora.Warned(message=text):
                self.log.appendPlainText(text)
            case cinderlora.Finished(result=result):
                self.show_end(f"Done: {result.lora}")
            case cinderlora.Failed(diagnosis=diagnosis):
                self.show_end(str(diagnosis))
            case cinderlora.Stopped():
                self.show_end(f"Stopped at step {self.bar.value()}.")

    def advance(self, step: int, total: int, loss: float | None, eta: float | None) -> None:
        self.bar.setMaximum(total)
        self.bar.setValue(step)
        left = "" if eta is None else f", {int(eta) // 60}:{int(eta) % 60:02} left"
        self.state.setText(f"Step {step}/{total}" + ("" if loss is None else f", loss {loss:.4f}") + left)

    def show_sample(self, path: Path) -> None:
        self.sample.setPixmap(QtGui.QPixmap(str(path)).scaled(256, 256, Qt.AspectRatioMode.KeepAspectRatio))

    def show_end(self, text: str) -> None:
        self.training = None
        self.state.setText(text)
        self.start.setEnabled(self.dataset.count() > 0)
        self.stop.setEnabled(False)

    def end(self) -> None:
        self.stop.setEnabled(False)
        if self.training is not None:
            # Takes up to some ten seconds. The program waits for it even if the window is closed.
            threading.Thread(target=self.training.stop, kwargs={"by": "window"}).start()

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:
        if self.training is not None:
            button, ask = QtWidgets.QMessageBox.StandardButton, QtWidgets.QMessageBox.question
            answer = ask(self, "Training", "Let it go on? No stops it.", button.Yes | button.No | button.Cancel)
            if answer == button.Cancel:
                return event.ignore()
            if answer == button.No:
                self.end()
        if self.following is not None:
            self.following.leave()
        return event.accept()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, required=True, help="folder of data sets, one per subfolder")
    parser.add_argument("--output", type=Path, required=True, help="folder that the LoRAs go to")
    parser.add_argument("--runs", type=Path, help="folder of the runs; the user's own unless given")
    parser.add_argument("--models", type=Path, help="folder of model files, such as ComfyUI/models")
    parser.add_argument("--sd-scripts", type=Path, help="checkout of sd-scripts; without one, trainings are rehearsed")
    app = QtWidgets.QApplication(sys.argv[:1])
    window = Window(parser.parse_args())
    window.show()
    sys.exit(app.exec())


if __name__ == "__main__":
    main()
