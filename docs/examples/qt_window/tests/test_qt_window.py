"""The window, offscreen, with rehearsed trainings on real folders. With `SCREENSHOTS=FOLDER` what it showed is kept."""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cinderlora import sync
from cinderlora.demo import write_dataset

pytestmark = pytest.mark.examples


class Screen:
    """The program's side of the tests: windows are opened, waited for and photographed."""

    def __init__(self, root: Path) -> None:
        from PySide6 import QtWidgets

        self.widgets = QtWidgets
        self.app = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["window"])
        self.root = root
        self.windows: list[Any] = []
        spec = importlib.util.spec_from_file_location("window", Path(__file__).parents[1] / "window.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)

    def open(self) -> Any:
        folders = {name: self.root / name for name in ("datasets", "output", "runs")}
        window = self.module.Window(argparse.Namespace(**folders, models=None, sd_scripts=None))
        window.show()
        self.windows.append(window)
        return window

    def until(self, is_so: Callable[[], object]) -> None:
        limit = time.monotonic() + 60
        while not is_so():
            self.app.processEvents()
            time.sleep(0.01)
            assert time.monotonic() < limit, [window.state.text() for window in self.windows]

    def close(self, window: Any, answer: str) -> bool:
        """Close a window as a person does, who answers what it asks. Whether it did close."""
        from PySide6.QtCore import QTimer

        asked = []

        def reply() -> None:
            box = self.app.activeModalWidget()
            asked.append(box.text())
            box.button(getattr(self.widgets.QMessageBox.StandardButton, answer)).click()

        QTimer.singleShot(100, reply)
        closed = window.close()
        assert len(asked) == 1
        return closed

    def keep(self, window: Any, name: str) -> None:
        self.app.processEvents()  # a label that grew moves what is below it
        picture = window.grab()
        assert picture.width() >= 800 and not picture.isNull()
        if folder := os.environ.get("SCREENSHOTS"):
            assert picture.save(str(Path(folder) / f"qt-{name}.png"))


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("PySide6.QtWidgets")
    write_dataset(tmp_path / "datasets/elena")
    screen = Screen(tmp_path)
    yield screen
    for run in sync.runs(tmp_path / "runs"):
        run.stop(grace=0)
    for window in screen.windows:
        if window.following is not None:
            window.following.leave()
        window.training = None
        window.close()
        window.deleteLater()
    screen.app.processEvents()


def begin(window: Any, *, steps: int = 20, model: str = "sdxl") -> None:
    window.type.setCurrentIndex(window.type.findData(model))
    window.steps.setValue(steps)
    window.start.click()


def test_from_the_choice_to_the_lora(screen: Screen) -> None:
    window = screen.open()
    assert window.dataset.currentText().startswith("elena (14 pictures, ready)") and window.trigger.text() == "elena"
    assert [window.preset.itemData(n) for n in range(window.preset.count())] == ["8gb", "10gb", "12gb", "16gb", "24gb"]
    screen.keep(window, "choice")
    begin(window, steps=300)
    assert not window.start.isEnabled()
    screen.until(lambda: window.bar.value() > 100)
    assert "Step " in window.state.text() and "loss 0." in window.state.text()
    screen.until(lambda: not window.sample.pixmap().isNull())
    screen.keep(window, "training")
    screen.until(window.start.isEnabled)
    lora = screen.root / "output/cg_elena.safetensors"
    assert window.state.text() == f"Done: {lora}" and lora.is_file()
    assert window.bar.value() == window.bar.maximum() == 300
    assert "REHEARSAL" in window.log.toPlainText() and not window.stop.isEnabled()
    screen.keep(window, "done")
    assert window.close()


def test_stop_ends_the_training(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "slow@0.05")
    window = screen.open()
    begin(window, steps=1000)
    screen.until(lambda: window.bar.value() > 3)
    window.stop.click()
    screen.until(window.start.isEnabled)
    assert window.state.text().startswith("Stopped at step ")
    assert [run.state for run in sync.runs(screen.root / "runs")] == ["stopped"]


def test_closed_and_opened_again(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "slow@0.05")
    window = screen.open()
    begin(window, steps=1000)
    screen.until(lambda: window.bar.value() > 3)
    assert not screen.close(window, "Cancel") and window.isVisible()
    assert screen.close(window, "Yes")
    (run,) = sync.runs(screen.root / "runs")
    assert run.state == "running"

    again = screen.open()
    screen.until(lambda: again.bar.value() > 10)
    assert again.log.toPlainText().count("a miniature") == 1 and not again.start.isEnabled()
    assert screen.close(again, "No")
    run.wait()
    assert run.state == "stopped"


@pytest.mark.parametrize("trigger", ["", "<b>elena</b>\x00"])
def test_what_is_refused_is_told(screen: Screen, trigger: str) -> None:
    window = screen.open()
    window.trigger.setText(trigger)
    begin(window)
    screen.until(window.start.isEnabled)
    assert "trigger" in window.state.text()
    screen.keep(window, "refused")
    assert sync.runs(screen.root / "runs") == []


def test_a_failure_is_explained(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "oom@5")
    window = screen.open()
    begin(window)
    screen.until(window.start.isEnabled)
    assert "memory" in window.state.text()
    screen.keep(window, "failed")


def test_closing_in_the_midst_of_a_silence(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINDERLORA_REHEARSE", "hang@5")
    window = screen.open()
    begin(window)
    screen.until(lambda: window.bar.value() == 4)
    before = time.monotonic()
    assert screen.close(window, "Yes")
    assert time.monotonic() - before < 20 and window.following.isFinished()


def test_without_data_sets_there_is_nothing_to_start(screen: Screen) -> None:
    import shutil

    shutil.rmtree(screen.root / "datasets")
    window = screen.open()
    assert not window.start.isEnabled()
