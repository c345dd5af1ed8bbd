"""Logical lines out of what a trainer prints for a terminal."""

from __future__ import annotations

import io
import logging
import string
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cinderlora.running.lines import LONGEST, Line, LineSplitter

BAR = "steps:  50%|█████     | 4/8 [00:19<00:19,  4.86s/it, avr_loss=2.61]"
BLANK_TIME = " " * 19
PIECES = [
    BAR,
    "\r",
    "\n",
    "\r\n",
    "  0%|          | 0/2 [00:00<?, ?it/s]",
    "read caption: 0it [00:00, ?it/s]",
    "\x1b[A",
    "\x1b]8;id=1;file:///tmp/x.py\x1b\\x.py\x1b]8;;\x1b\\",
    "\x1b[1;31m",
    " ",
    " " * 29,
    "プロンプト",
    "Traceback (most recent call last):",
    f"2026-11-23 00:30:21 INFO     found directory{' ' * 18}train_util.py:2059",
    f"{BLANK_TIME} WARNING  no regularization images /       train_util.py:2167",
    f"{' ' * 29}/data/lora/bench/by-hand/sd3-ric{' ' * 19}",
    "plain words",
    "]",
    "\x00",
    "|",
]
OUTPUT = st.lists(st.sampled_from(PIECES) | st.text(max_size=8) | st.binary(max_size=4)).map(
    lambda parts: b"".join(p if isinstance(p, bytes) else p.encode("utf-8", "surrogatepass") for p in parts)
)


def split(*chunks: bytes) -> list[Line]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.close()


def texts(output: str | bytes) -> list[str]:
    return [line.text for line in split(output if isinstance(output, bytes) else output.encode())]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    at = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(at)]


@given(OUTPUT, st.lists(st.integers(min_value=0)))
@example("\r".join(["", BAR, BAR]).encode(), [40, 41, 100])
def test_lines_do_not_depend_on_the_chunks(data: bytes, places: list[int]) -> None:
    whole = split(data)
    assert split(*cut(data, places)) == whole
    assert split(*[bytes([byte]) for byte in data]) == whole


@given(OUTPUT)
def test_every_line_ends_at_a_place_of_its_own_in_the_output(data: bytes) -> None:
    lines = split(data)
    ends = [line.end for line in lines]
    assert ends == sorted(set(ends))
    assert all(0 < end <= len(data) for end in ends)
    assert all(line.text.strip() for line in lines)
    assert not any(c in line.text for line in lines for c in "\r\n\x1b\x00")


def test_a_bar_is_complete_at_its_bracket() -> None:
    data = f"\r{BAR}".encode()
    splitter = LineSplitter()
    assert splitter.feed(data[:-1]) == []
    assert splitter.feed(data[-1:]) == [Line(BAR, len(data), bar=True)]
    assert splitter.feed(b"  \n") == splitter.close() == []


@pytest.mark.parametrize("padding", ["", " ", "   "])
@pytest.mark.parametrize(
    "glued",
    [
        "Traceback (most recent call last):",
        "/venv/torch/utils/checkpoint.py:238: UserWarning: None of the inputs have requires_grad=True.",
        "\x1b[Aprompt: elena portrait in paris",
    ],
)
def test_what_follows_a_bar_is_a_line_of_its_own(padding: str, glued: str) -> None:
    assert texts(f"\r{BAR}{padding}{glued}\n") == [BAR, glued.removeprefix("\x1b[A")]


@pytest.mark.parametrize("padding", ["", " ", "     "])
@pytest.mark.parametrize("time", ["2026-11-23 00:30:29", BLANK_TIME])
def test_a_wrapped_record_that_follows_a_bar(padding: str, time: str) -> None:
    rows = [
        f"{time} INFO     generating sample images at  sd3_train_utils.py:400",
        f"{' ' * 29}step / サンプル画像生成                            ",
        f"{' ' * 29}ステップ: 4                                        ",
    ]
    lines = split(f"\r{BAR}{padding}".encode() + "\n".join(rows).encode())
    assert [line.text for line in lines] == [BAR, "generating sample images at step / サンプル画像生成 ステップ: 4"]
    assert lines[1].level == "INFO"


def test_nested_bars_and_their_cursor_movements() -> None:
    two = "  0%|          | 0/2 [00:00<?, ?it/s]"
    half = " 50%|█████     | 1/2 [00:01<00:01,  1.20s/it]"
    assert texts(f"\n\r{two}\x1b[A\n\r{half}\x1b[A\n\r{' ' * 45}\x1b[Aprompt: next\n") == [
        two.strip(),
        half.strip(),
        "prompt: next",
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_wrapped_path_comes_out_whole(end: str) -> None:
    rows = [
        f"2026-11-23 00:30:21 ERROR    {'Error loading file:':32} train_util.py:2960",
        f"{' ' * 29}{'/data/lora/my pictures of':51}",
        f"{' ' * 29}{'elena/a_rather_long_file_name_it':51}",
        f"{' ' * 29}{'_is_indeed_02.png':51}",
        f"{BLANK_TIME} INFO     {'next':32} train_util.py:2961",
    ]
    lines = split((end.join(rows) + end).encode())
    assert [(line.text, line.level) for line in lines] == [
        ("Error loading file: /data/lora/my pictures of elena/a_rather_long_file_name_it_is_indeed_02.png", "ERROR"),
        ("next", "INFO"),
    ]


def test_a_line_is_cut_where_it_gets_too_long() -> None:
    data = b"x" * (3 * LONGEST + 5) + b"\nend\n"
    lines = split(data)
    assert [len(line.text) for line in lines] == [LONGEST, LONGEST, LONGEST, 5, 3]
    assert split(*cut(data, range(0, len(data), 4099))) == lines
    splitter = LineSplitter()
    for _ in range(100):
        splitter.feed(b"x" * 100_000)
        assert len(splitter._rest) < LONGEST, "what has no end is not kept"


def test_characters_cut_in_two_and_bytes_that_are_none() -> None:
    data = "ステップ: 4\n".encode() + b"caf\xe9\n"
    assert texts(data) == ["ステップ: 4", "caf\ufffd"]
    assert split(data[:2], data[2:]) == split(data)


def test_a_bar_that_a_narrow_terminal_cut_is_no_log_line() -> None:
    assert [line.bar for line in split(b"\rsteps:  50%|#####  | 4/8 [00:19\r\n")] == [True]


WORDS = st.text(
    string.ascii_letters + string.digits + string.punctuation + "äüß画像生成プロンプト（）", min_size=1, max_size=90
)
MESSAGE = st.lists(st.lists(WORDS, min_size=1, max_size=12).map(" ".join), min_size=1, max_size=4)


@given(MESSAGE, st.sampled_from([80, 100, 140, 400]), st.booleans())
def test_what_rich_wrapped_is_put_together_again(message: list[str], width: int, terminal: bool) -> None:
    """But for the blanks: where a word fills a row exactly, nothing tells whether it was cut there."""
    pytest.importorskip("rich")
    from rich.console import Console
    from rich.logging import RichHandler

    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system="truecolor" if terminal else None)
    handler = RichHandler(console=console, markup=False, highlighter=None)
    handler.setFormatter(logging.Formatter("%(message)s", datefmt="%Y-%m-%d %H:%M:%S"))
    for text in ["\n".join(message), "end"]:
        handler.handle(logging.LogRecord("x", logging.INFO, "library/train_util.py", 2059, text, None, None))
    printed = file.getvalue()
    lines = split(printed.replace("\n", "\r\n" if terminal else "\n").encode())
    assert lines[-1].text == "end"
    assert {line.level for line in lines} == {"INFO"}
    assert "".join(line.text for line in lines[:-1]).replace(" ", "") == "".join(message).replace(" ", "")
    if width == 400 and all(len(part) < 160 and part.isascii() for part in message) and len(message) == 1:
        assert lines[0].text == message[0]
