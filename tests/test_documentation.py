"""The README's own words: its commands are the ones that are run, its snippet trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cinderlora

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_test_command_is_the_one_that_ci_runs():
    command = re.search(r"^python3 -m venv .*pytest$", README, re.MULTILINE)
    assert command is not None
    assert command.group() in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()


def test_links_lead_somewhere():
    pages = [page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts]
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.startswith("# Changelog\n") and "https://keepachangelog.com/en/1.1.0/" in text
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    assert f"[{cinderlora.__version__}]" in text or len(versions) == 1
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


class Panel:
    """A front end's panel, as the snippet speaks to it."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.shown: list[Path] = []
        self.lines: list[str] = []
        self.lora: Path | None = None

    def refuse(self, report):
        raise AssertionError([str(p) for p in report.errors])

    def advance(self, step, total, loss, eta):
        self.steps.append(step)

    def show(self, path):
        self.shown.append(path)

    def write(self, text):
        self.lines.append(text)

    def done(self, lora):
        self.lora = lora


@pytest.mark.anyio
async def test_the_embedding_snippet_trains(pictures, tmp_path, monkeypatch):
    snippet = re.search(r"```python\n(import anyio.*?)```", README, re.DOTALL)
    assert snippet is not None
    code = snippet.group(1).replace("steps=1500, sample_every=250", "steps=20, sample_every=10, resolution=64")
    assert code != snippet.group(1)
    monkeypatch.chdir(pictures.parent.parent)
    (tmp_path / "datasets").mkdir()
    pictures.rename(tmp_path / "datasets/elena")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "comfy/models").mkdir(parents=True)
    names: dict = {}
    exec(code, names)  # noqa: S102 - it is ours
    names["trainer"] = cinderlora.SdScripts.rehearsal()
    panel = Panel()
    await names["train"](panel, tmp_path / "comfy")
    assert panel.steps[-1] == 20 and len(panel.shown) == 2
    assert panel.lora == tmp_path / "comfy/models/loras/cg_elena.safetensors" and panel.lora.exists()
    assert any("REHEARSAL" in line for line in panel.lines)
