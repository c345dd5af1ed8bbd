"""cinderlora's folders are those that platformdirs gives, on each system."""

from __future__ import annotations

import sys
from pathlib import Path

import platformdirs
import pytest
from platformdirs.macos import MacOS

from cinderlora.folders import cache_folder, config_folder, data_folder

LINUX = pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="the folders of other Unix systems")


def ours() -> list[str]:
    return [str(folder()) for folder in (data_folder, config_folder, cache_folder)]


def theirs(dirs: platformdirs.PlatformDirsABC) -> list[str]:
    return [dirs.user_data_dir, dirs.user_config_dir, dirs.user_cache_dir]


@LINUX
@pytest.mark.parametrize(
    "value", [None, "", "  ", "/elsewhere/ü folder", "/elsewhere/", "/a/../b", "relative/folder", "."]
)
def test_the_folders_of_linux(monkeypatch, tmp_path, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    expected = theirs(platformdirs.PlatformDirs("cinderlora", appauthor=False))
    assert [Path(folder) for folder in ours()] == [Path(folder) for folder in expected]
    assert all(folder.startswith(str(tmp_path)) for folder in ours()) == (not (value or "").startswith("/"))


@LINUX
def test_each_variable_moves_its_own_folder(monkeypatch, tmp_path):
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert ours() == [
        str(tmp_path / variable / "cinderlora") for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    ]


@LINUX
def test_the_folders_of_macos(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ours() == theirs(MacOS("cinderlora", appauthor=False))


@pytest.mark.skipif(sys.platform != "win32", reason="the folders of Windows")
def test_the_folders_of_windows():
    assert ours() == theirs(platformdirs.PlatformDirs("cinderlora", appauthor=False, roaming=False))
