"""What a script takes, read from its source: what argparse itself says of it, without running any of it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderlora import JobRefused, Registry, SdScripts
from cinderlora.sd_scripts.argument_cache import checkout_arguments
from cinderlora.sd_scripts.arguments import MOVED, RENAMED, Arguments, argument_problems, known_arguments
from cinderlora.sd_scripts.extract import extract_arguments

DATA = Path(__file__).parent / "data/sd_scripts"
LAYOUTS = ["parsers_in_train_util", "parsers_in_args"]
SCRIPTS = ["train_network.py", "flux_train_network.py", "sdxl_train_network.py"]
SHIPPED = ["flux_train_network.py", "sdxl_train_network.py", "sd3_train_network.py"]
FIELDS = {"action", "choices", "const", "default", "dest", "flags", "is_boolean", "nargs", "required", "type"}

DESCRIBE = """
def described(action):
    kind = type(action).__name__.removeprefix("_")
    return {
        "action": kind, "choices": None if action.choices is None else list(action.choices), "const": action.const,
        "default": action.default, "dest": action.dest, "flags": list(action.option_strings),
        "is_boolean": kind in {"StoreTrueAction", "StoreFalseAction", "BooleanOptionalAction"}, "nargs": action.nargs,
        "required": action.required, "type": getattr(action.type, "__name__", None),
    }
"""
SAY = (
    DESCRIBE
    + """
import contextlib, importlib, io, json, sys, types
folder, script, *absent = sys.argv[1:]
for name in absent:
    sys.modules[name] = types.SimpleNamespace(Accelerator=object, bfloat16=None)
sys.path.insert(0, folder)
with contextlib.redirect_stdout(io.StringIO()):
    parser = importlib.import_module(script.removesuffix(".py")).setup_parser()
print(json.dumps({action.dest: described(action) for action in parser._actions}))
"""
)


def what_argparse_says(folder: Path, script: str, *absent: str, python: str | Path = sys.executable) -> dict:
    """The arguments of a script, by running its `setup_parser()` in a process of its own."""
    command = [python, "-B", "-c", SAY, str(folder), script, *absent]
    return json.loads(subprocess.run(command, check=True, capture_output=True, cwd=folder).stdout)


def reader(folder: Path):
    return lambda name: (folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else None


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout in the newer layout, with all that the files of a job hold."""
    return shutil.copytree(DATA / "parsers_in_args", tmp_path / "sd-scripts")


# ---- whole scripts ----


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_layouts_give_what_argparse_says(layout, script):
    found = extract_arguments(script, reader(DATA / layout))
    assert found.arguments == what_argparse_says(DATA / layout, script, "torch", "accelerate")
    assert found.complete and not found.notes


def test_both_layouts_give_the_same():
    old, new = (extract_arguments("flux_train_network.py", reader(DATA / layout)) for layout in LAYOUTS)
    assert old == new and len(new.arguments) > 50


def test_nothing_is_run(tmp_path):
    """Every file of a checkout could do anything; reading it does nothing."""
    script = """
        import argparse
        open("run", "w")
        raise SystemExit(3)
        def setup_parser():
            open("run", "w")
            parser = argparse.ArgumentParser()
            parser.add_argument("--a", type=lambda text: open("run", "w"), default="x")
            parser.parse_args([])
            return parser
    """
    (tmp_path / "train.py").write_text(textwrap.dedent(script))
    found = extract_arguments("train.py", reader(tmp_path))
    assert found.arguments["a"]["type"] == "<lambda>"
    assert [path.name for path in tmp_path.iterdir()] == ["train.py"]


# ---- single constructs ----

HELPERS = {
    "library/__init__.py": "from library.names import *\nPACKAGE = 'package'\n",
    "library/names.py": "NAMES = ['a', 'b']\nTABLE = {'x': 1, 'y': 2}\nLIMIT = 1 + 2\n",
    "library/deep/__init__.py": "from .low import add_low\nfrom ..names import NAMES as ABOVE\n",
    "library/deep/low.py": "from . import words\ndef add_low(p, *more, **others):\n"
    "    p.add_argument('--low', choices=words.WORDS + list(more), **others)\n",
    "library/deep/words.py": "WORDS = ['lo', 'wer']\n",
}
FOLLOWED = {
    "no options": "parser.add_argument('--a')",
    "several flags": "parser.add_argument('-a', '--long-name', '--other')",
    "a dest of its own": "parser.add_argument('--a', dest='b', type=float)",
    "types": "[parser.add_argument('--a', type=int), parser.add_argument('--b', type=bool)]",
    "a path": "import pathlib\nparser.add_argument('--a', type=pathlib.Path)",
    "a lambda": "parser.add_argument('--a', type=lambda text: text.split(','))",
    "a function": "def pair(text):\n    return text.split('x')\nparser.add_argument('--a', type=pair, default='1x2')",
    "nargs": "parser.add_argument('--a', nargs='+')\nparser.add_argument('--b', nargs=2, type=int, default=(1, 2))",
    "an optional value": "parser.add_argument('--a', nargs='?', const='yes', default='no')",
    "constants of argparse": "parser.add_argument('--a', nargs=argparse.ZERO_OR_MORE, default=argparse.SUPPRESS)",
    "required": "parser.add_argument('--a', required=True)",
    "actions": "parser.add_argument('--a', action='store_false')\n"
    "parser.add_argument('-v', action='count', default=0)\n"
    "parser.add_argument('--b', action='append', default=[])\n"
    "parser.add_argument('--c', action='store_const', const=5)",
    "a pair of switches": "parser.add_argument('--a', action=argparse.BooleanOptionalAction, default=True)",
    "a group": "group = parser.add_argument_group('more', 'words')\ngroup.add_argument('--a', type=int, default=-1)",
    "one of several": "some = parser.add_mutually_exclusive_group(required=True)\nsome.add_argument('--a')",
    "defaults later": "parser.add_argument('--a', default=1)\nparser.set_defaults(a=2)",
    "another parser": "parser = argparse.ArgumentParser(description='x', add_help=False)\nparser.add_argument('--a')",
    "a parent": "base = argparse.ArgumentParser(add_help=False)\nbase.add_argument('--a')\n"
    "parser = argparse.ArgumentParser(parents=[base])",
    "the last one counts": "parser = argparse.ArgumentParser(conflict_handler='resolve')\n"
    "parser.add_argument('--a', type=int)\nparser.add_argument('--a', type=float)",
    "names of the module": "parser.add_argument('--a', choices=CHOICES, default=DEFAULT, type=int)",
    "names of another one": "from library.names import NAMES as WORDS, TABLE\n"
    "parser.add_argument('--a', choices=list(TABLE))\nparser.add_argument('--b', choices=sorted(TABLE.keys()))\n"
    "parser.add_argument('--c', choices=[None, *WORDS])",
    "all names of another one": "import library\nparser.add_argument('--a', choices=library.NAMES)",
    "a package's names": "from library import PACKAGE, names\n"
    "parser.add_argument('--a', default=PACKAGE)\nparser.add_argument('--b', default=names.LIMIT, type=int)",
    "modules by their whole name": "import library.names\nparser.add_argument('--a', default=library.names.LIMIT)",
    "relative imports": "from library import deep\ndeep.add_low(parser, 'est', default='lo')\n"
    "parser.add_argument('--a', choices=deep.ABOVE)",
    "a list that grows": "names = ['a']\nnames.append('b')\nnames.extend(['c', 'd'])\n"
    "parser.add_argument('--a', choices=names)",
    "a helper inside": "def add(name, **options):\n    parser.add_argument('--' + name, **options)\n"
    "add('a', type=int)\nadd('b')",
    "a group given on": "def fill(group, wide=False, *, deep=True):\n"
    "    if wide and deep:\n        group.add_argument('--a')\n    if not wide:\n"
    "        return\n    group.add_argument('--b')\nfill(parser, wide=True)\nfill(parser)",
    "conditions": "if DEFAULT == 3 and 'a' in ('a', 'b') and DEFAULT is not None:\n    parser.add_argument('--a')\n"
    "else:\n    parser.add_argument('--b')",
    "one of two": "parser.add_argument('--a', type=int if DEFAULT else str, default=None or DEFAULT)",
    "attempts": "try:\n    parser.add_argument('--a')\nexcept ValueError:\n    pass\n"
    "finally:\n    parser.add_argument('--b')",
}


def snippet(body: str) -> str:
    return (
        "import argparse\nimport os\nCHOICES = [1, 2, 3]\nDEFAULT: int = 3\n\ndef setup_parser():\n"
        "    parser = argparse.ArgumentParser()\n" + textwrap.indent(body, "    ") + "\n    return parser\n"
    )


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> dict:
    """What argparse says of all the snippets, from one process."""
    folder = tmp_path_factory.mktemp("snippets")
    for name, text in HELPERS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    code = DESCRIBE + (
        "import json, sys\nfound = {}\nfor name, body in json.load(sys.stdin).items():\n    space = {}\n"
        "    exec(body, space)\n"
        "    found[name] = {action.dest: described(action) for action in space['setup_parser']()._actions}\n"
        "print(json.dumps(found))"
    )
    given = json.dumps({name: snippet(body) for name, body in FOLLOWED.items()})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=given, text=True, check=True, capture_output=True, cwd=folder)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_is_followed_gives_what_argparse_says(truth, name):
    files = HELPERS | {"x.py": snippet(FOLLOWED[name])}
    found = extract_arguments("x.py", files.get)
    assert json.loads(json.dumps(found.arguments)) == truth[name]
    assert set(found.arguments) - {"help"} and found.complete
    assert not any(argument.get("unknown") for argument in found.arguments.values())


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        ("parser.add_argument('--a', type=int, default=os.cpu_count())", ["default"]),
        ("parser.add_argument('--a', choices=[name for name in CHOICES])", ["choices"]),
        ("parser.add_argument('--a', choices=os.listdir('.'), default=0)", ["choices"]),
        ("parser.add_argument('--a', type=make_type(3), nargs=os.cpu_count())", ["nargs", "type"]),
        ("parser.add_argument('--a', nargs=10**10)", ["nargs"]),
        ("parser.add_argument('--a', nargs=1000000000)", ["nargs"]),
        ("parser.add_argument('--a', default=b'bytes')", ["default"]),
        ("parser.add_argument('--a', default=[[[[[]]]]])", ["default"]),
        ("parser.set_defaults(x=1)\nparser.add_argument('--a')\nparser.set_defaults(a=os.name)", ["default"]),
        ("names = ['x']\nnames.insert(0, 'y')\nparser.add_argument('--a', choices=names)", ["choices"]),
        ("names = ['x']\nnames[0] = 'y'\nparser.add_argument('--a', choices=names)", ["choices"]),
        ("name = 'x'\nif os.name == 'nt':\n    name = 'y'\nparser.add_argument('--a', default=name)", ["default"]),
        ("for name in CHOICES:\n    pass\nparser.add_argument('--a', default=name)", ["default"]),
        ("parser.add_argument('--a', default=CHANGED)", ["default"]),
        ("parser.add_argument('--a', choices=MORE)", ["choices"]),
        ("parser.add_argument('--a', action=MyAction)", sorted(FIELDS - {"dest", "flags", "is_boolean"})),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_none_and_said_so(body, unknown):
    text = "CHANGED = 1\nCHANGED += 1\nMORE = []\nMORE.append(5)\nclass MyAction: pass\n" + snippet(body)
    found = extract_arguments("x.py", {"x.py": text}.get)
    assert sorted(found.arguments["a"]["unknown"]) == unknown and found.complete
    assert all(found.arguments["a"][field] is None for field in set(unknown) & {"choices", "default", "nargs", "type"})
    assert found.notes or "set_defaults" in body
    args = {"a": ["any", 1]} if {"type", "nargs"} & set(unknown) else {"a": "any"}
    problems = list(argument_problems("x.py", args, Arguments(found.arguments)))
    assert not problems or unknown == ["default"], problems


@pytest.mark.parametrize(
    "body",
    [
        "for name in ['b', 'c']:\n    parser.add_argument('--' + name)",
        "while True:\n    parser.add_argument('--b')",
        "[parser.add_argument('--' + name) for name in ('b', 'c')]",
        "parser.add_argument('--' + os.name)",
        "parser.add_argument('--b', dest=os.name)",
        "parser.add_argument(*os.environ)",
        "parser.add_argument('--b', **os.environ)",
        "parser.add_argument(*(['-b'] * 10**9))",
        "import accelerate\naccelerate.add_arguments(parser)",
        "add = parser.add_argument\nos.walk(add)",
        "def add(name):\n    parser.add_argument(name)\nlist(map(add, ['--b']))",
        "group = parser.add_argument_group()\nos.walk(group)",
        "from library.broken import add\nadd(parser)",
        "from library.nowhere import add\nadd(parser)",
        "parser.add_subparsers().add_parser('b')",
        "parser.add_argument('--a', type=int)",
        "parser.add_argument('--b', action='store_true', type=int)",
        "setattr(parser, 'add_argument', print)",
        "parser = argparse.ArgumentParser(conflict_handler=os.name)\nparser.add_argument('--a')",
    ],
)
def test_where_arguments_may_be_missed_it_says_so(body):
    text = snippet("parser.add_argument('--a')\n" + body)
    found = extract_arguments("x.py", {"x.py": text, "library/broken.py": "def add(parser:"}.get)
    assert "a" in found.arguments and not found.complete and found.notes[0].startswith("x.py:")
    (problem,) = argument_problems("x.py", {"zzz": 1}, Arguments(found.arguments, complete=found.complete))
    assert (problem.code, problem.severity) == ("argument_uncertain", "warning")


def test_both_ways_of_a_condition_that_cannot_be_told():
    body = "if os.name == 'nt':\n    parser.add_argument('--a')\nelse:\n    parser.add_argument('--b')"
    found = extract_arguments("x.py", {"x.py": snippet(body)}.get)
    assert set(found.arguments) == {"help", "a", "b"} and found.complete and "both ways" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "", "\0", "def", "x = 1", "setup_parser = 3", "from setup import setup_parser", "import setup_parser",
        "def setup_parser():\n    pass", "def setup_parser():\n    return 5", "async def setup_parser():\n    return 5",
        "def setup_parser():\n    return setup_parser()", "setup_parser = lambda: setup_parser()", "from x import *",
        "from .x import setup_parser", "from . import setup_parser", "from x import setup_parser",
        "def a(n):\n    b(n)\n    b(n)\ndef b(n):\n    a(n)\n    a(n)\ndef setup_parser():\n    return a(1)",
        "(" * 300, "x = " + "-" * 5000 + "1\ndef setup_parser():\n    return x", "a = b\nb = a\nsetup_parser = a",
        "def setup_parser():\n    return " + "+".join(["x"] * 3000),
        "def setup_parser():\n" + "    print()\n" * 120_000,
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_scripts_without_a_parser_give_none(text):
    assert extract_arguments("x.py", {"x.py": text}.get) is None


def test_what_grows_and_grows_comes_to_an_end():
    body = "x = ['a']\ny = 'a'\n" + "x = x + x\ny = y + y\nx.extend(x)\n" * 60 + "parser.add_argument('--a', default=x)"
    began = time.perf_counter()
    found = extract_arguments("x.py", {"x.py": snippet(body + "\nparser.add_argument('--b', default=y)")}.get)
    assert found.arguments["a"]["unknown"] == found.arguments["b"]["unknown"] == ["default"]
    assert time.perf_counter() - began < 10  # and not for ever


# ---- any source at all ----

FILES = {
    path.relative_to(DATA / "parsers_in_args").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((DATA / "parsers_in_args").rglob("*.py"))
}
PIECES = [
    *FOLLOWED.values(),
    "x = x + x",
    "x.append(x)",
    "x = [x, x]",
    "names = {'a': names}",
    "return parser",
    "raise ValueError",
    "parser = parser",
    "parser = None",
    "while x:\n    x = parser",
    "if x:\n    return",
    "x = parser.add_argument",
    "x('--x')",
    "parser.add_argument(x, default=x, choices=x, nargs=x, type=x, action=x)",
    "from library import *",
    "parser.add_argument('', '-', '--', dest='')",
    "def parser():\n    return parser()",
    "parser()",
    "x = setup_parser()",
    "parser.add_argument('--%s', help='%(x)s')",
    "parser.add_argument('--s', default='\\ud800')",
    "x = not -x in [x]",
    "parser.add_argument('--n', default=1e999, const=-1e999, nargs='?')",
    "x = 0xffffffffffffffffffffff",
    "x: int",
    "with x as parser:\n    pass",
    "global parser",
    "del parser",
    "lambda: parser",
    "x = (yield)",
    "x = parser = 1",
    "parser.add_argument('pos')",
    "parser.add_argument('pos', nargs='*')",
    "parser.set_defaults(**{'': 1, 'a b': x})",
    "class X:\n    def parser(self): pass",
    "match x:\n    case parser:\n        pass",
    "parser.x = parser.y.z",
    "x = x.y.z",
    "x = X.y",
    "argparse.ArgumentParser(parents=[parser], prefix_chars=x, argument_default=1)",
    "import argparse as parser",
    "parser.add_argument('--t', default=(1, [2, {'a': None}]), type=argparse.FileType('w'))",
    "*x, parser = x",
]


def only_inside(files: dict[str, str]):
    """A reader that is asked for nothing but files below the script's folder."""

    def read(name: str) -> str | None:
        assert all(part.removesuffix(".py").isidentifier() for part in name.split("/")), name
        return files.get(name)

    return read


def assert_sound(found) -> None:
    if found is None:
        return
    assert json.loads(json.dumps(found.arguments)) == found.arguments
    for dest, argument in found.arguments.items():
        assert argument["dest"] == dest and FIELDS <= set(argument) <= FIELDS | {"unknown"}
    list(argument_problems("x.py", dict.fromkeys([*found.arguments, "zzz"], 3), Arguments(found.arguments)))


@given(st.text())
def test_any_text(text):
    assert_sound(extract_arguments("x.py", only_inside({"x.py": text})))
    assert_sound(extract_arguments("x.py", only_inside({"x.py": snippet(text)})))


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_order_of_statements(pieces):
    """Also where it is nonsense: what argparse and Python would refuse."""
    text = "class X: pass\n" + snippet("\n".join(["x = 1", *pieces]))
    assert_sound(extract_arguments("x.py", only_inside(HELPERS | {"x.py": text})))


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(
        st.tuples(
            st.integers(0, 10**4), st.integers(0, 40), st.sampled_from(["", "(", "*", "parser", "'", "\n", "x=", "ü"])
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_any_damage_to_a_script(name, cuts):
    text = FILES[name]
    for place, length, instead in cuts:
        at = place % (len(text) + 1)
        text = text[:at] + instead + text[at + length :]
    assert_sound(extract_arguments("flux_train_network.py", only_inside(FILES | {name: text})))


# ---- kept ----


def test_it_is_kept_until_a_file_changes(checkout, tmp_path):
    first = checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path)
    (kept,) = (tmp_path / "arguments").iterdir()
    marked = json.loads(kept.read_text())
    marked["arguments"]["marked"] = marked["arguments"]["seed"]
    kept.write_text(json.dumps(marked))
    assert "marked" in checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path)
    assert "marked" not in checkout_arguments(checkout, "sdxl_train_network.py", folder=tmp_path)
    with (checkout / "library/args.py").open("a") as file:
        file.write("# a change\n")
    assert checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path) == first
    # A file that was looked for in vain, and would come first:
    (checkout / "library/args").mkdir()
    (checkout / "argparse.py").write_text("ArgumentParser = None")
    assert checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path) is None


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b"\xff\xfe",
        b"[" * 100_000,
        "cut",
        {"version": 0},
        {"files": []},
        {"files": None},
        {"files": {"\0": None}},
        {"complete": 1},
        {"notes": None},
        {"arguments": []},
        {"arguments": {"a": None}},
        {"arguments": {"a": {}}},
        {"arguments": {"a": {"type": []}}},
    ],
    ids=repr,
)
def test_a_broken_file_is_read_again(checkout, tmp_path, broken):
    first = checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path)
    (kept,) = (tmp_path / "arguments").iterdir()
    whole = kept.read_bytes()
    if broken == "cut":
        kept.write_bytes(whole[: len(whole) // 2])
    else:
        kept.write_bytes(json.dumps(json.loads(whole) | broken).encode() if isinstance(broken, dict) else broken)
    again = checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path)
    assert again == first
    assert checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path) == first


def test_a_cache_that_cannot_be_written_is_done_without(checkout, tmp_path):
    (tmp_path / "file").write_text("")
    assert checkout_arguments(checkout, "flux_train_network.py", folder=tmp_path / "file").complete
    assert (tmp_path / "file").read_text() == ""


def test_without_a_checkout_the_shipped_ones_serve(tmp_path):
    assert known_arguments("flux_train_network.py", tmp_path) == known_arguments("flux_train_network.py")
    assert known_arguments("nowhere.py", tmp_path) is None and known_arguments("nowhere.py") is None
    (tmp_path / "flux_train_network.py").write_text("no python at all")
    assert len(known_arguments("flux_train_network.py", tmp_path)) == 216
    assert known_arguments("../flux_train_network.py") is None


@pytest.mark.parametrize("script", SHIPPED)
def test_the_shipped_ones_are_sound(script):
    known = known_arguments(script)
    assert known.complete and all(set(argument) == FIELDS for argument in known.values())


# ---- used ----


@pytest.mark.parametrize(
    ("script", "key", "code", "word"),
    [
        ("sd3_train_network.py", "guidance_scale", "argument_of_another_script", "flux_train_network.py"),
        ("sdxl_train_network.py", "blocks_to_swap", "argument_of_another_script", "sd3_train_network.py"),
        ("flux_train_network.py", "training_shift", "argument_of_another_script", "sd3_train_network.py"),
        ("flux_train_network.py", "validation_every_n_step", "argument_renamed", "validate_every_n_steps"),
        ("flux_train_network.py", "loraplus_lr_ratio", "argument_moved", "network_args"),
        ("flux_train_network.py", "learning_rat", "argument_unknown", "learning_rate"),
        ("flux_train_network.py", "qwertz", "argument_unknown", "qwertz"),
    ],
)
def test_what_is_said_of_an_unknown_key(script, key, code, word):
    (problem,) = argument_problems(script, {key: 1})
    assert problem.code == code and problem.severity == "error"
    for text in (problem.text("en"), problem.text("de")):
        assert key in text.message and word in " ".join(text)


def test_renamed_ones_are_gone_and_their_new_names_are_there():
    for script in SHIPPED:
        known = known_arguments(script)
        assert not set(known) & {*RENAMED, *MOVED}
        assert {*RENAMED.values(), *MOVED.values()} <= set(known)


@pytest.mark.parametrize(
    ("argument", "right", "wrong"),
    [
        ("parser.add_argument('--a', type=int)", [1, None], ["1", 1.5, True, [1]]),
        ("parser.add_argument('--a', type=float)", [1, 1.5, None], ["1", True]),
        ("parser.add_argument('--a')", ["", "x", False], [1, ["x"], True]),  # False: left out
        ("parser.add_argument('--a', action='store_true')", [True, False], ["true", 1, 0]),
        ("parser.add_argument('--a', action=argparse.BooleanOptionalAction)", [True, False], ["false"]),
        ("parser.add_argument('--a', nargs='*')", [[], ["x"], ("x", "y")], ["x", ["x", 1]]),
        ("parser.add_argument('--a', nargs='+', type=float)", [[1], [0.5, 2]], [1.0, ["1"]]),
        ("parser.add_argument('--a', nargs='*', choices=['x', 'y'])", [["x", "y"]], [["x", "z"]]),
        ("parser.add_argument('--a', choices=[None, 'x'])", ["x", None], ["z"]),
        ("parser.add_argument('--a', type=int, choices=[0, 1])", [1], [2, "1"]),
        ("parser.add_argument('--a', type=lambda text: text)", ["x", 1, [1]], []),
        ("parser.add_argument('--a', action='append')", [["x"]], []),
        ("parser.add_argument('--a', action='count')", [3], []),
    ],
)
def test_types_and_choices(argument, right, wrong):
    found = extract_arguments("x.py", {"x.py": snippet(argument)}.get)
    known = Arguments(found.arguments)
    for value in right:
        assert not list(argument_problems("x.py", {"a": value}, known)), value
    for value in wrong:
        assert [p.code for p in argument_problems("x.py", {"a": value}, known)] in (
            ["argument_type"], ["argument_choice"],
        ), value  # fmt: skip


def flux_job(registry, folder: Path, **options):
    options = {"name": "elena", "trigger": "elena", "dataset": folder, "output": folder.parent / "out"} | options
    return registry["flux"].job(**{"preset": "16gb"} | options)


def training(plan) -> dict:
    return tomllib.loads(plan.files["elena_kohya_training.toml"])["training"]


def test_a_job_is_held_against_the_checkout_that_will_run_it(registry, pictures, checkout):
    flux, trainer = registry["flux"], SdScripts(checkout, python=sys.executable)
    job = flux_job(registry, pictures, extra={"only_in_this_version": True})
    plan = flux.plan(job, trainer)
    assert training(plan)["only_in_this_version"] is True
    assert "metadata_trigger_phrase" not in training(plan)  # this checkout does not know it
    with pytest.raises(JobRefused) as caught:
        flux.plan(job, SdScripts.rehearsal())
    assert caught.value.code == "argument_unknown"
    plan = flux.plan(job.evolve(extra={}), SdScripts.rehearsal())
    assert training(plan)["metadata_trigger_phrase"] == "elena"


@pytest.mark.parametrize(
    ("options", "code", "setting"),
    [
        ({"extra": {"skip_cache_check": True}}, "argument_newer", "skip_cache_check"),
        ({"extra": {"training_shift": 1.0}}, "argument_of_another_script", "training_shift"),
        ({"extra": {"seed": "42"}}, "argument_type", "seed"),
        ({"sample_sampler": "dpmsolver"}, "argument_choice", "sample_sampler"),
        ({"sample_sampler": "eulr"}, "argument_choice", "sample_sampler"),
    ],
)
def test_what_the_checkout_refuses(registry, pictures, checkout, options, code, setting):
    flux, job = registry["flux"], flux_job(registry, pictures, **options)
    trainer = SdScripts(checkout, python=sys.executable)
    found = [p for p in flux.check(job, trainer).errors if p.code == code]
    assert [p.params["setting"] for p in found] == [setting]
    with pytest.raises(JobRefused) as caught:
        flux.plan(job, trainer)
    assert code in [p.code for p in caught.value.problems]


def test_a_common_key_that_the_checkout_lacks_is_refused(registry, pictures, checkout):
    args = checkout / "library/args.py"
    args.write_text(args.read_text().replace('"--blocks_to_swap"', '"--swapped_blocks"'))
    with pytest.raises(JobRefused) as caught:
        registry["flux"].plan(flux_job(registry, pictures), SdScripts(checkout, python=sys.executable))
    assert [(p.code, p.params["setting"]) for p in caught.value.problems] == [("argument_newer", "blocks_to_swap")]
    job = flux_job(registry, pictures, blocks_to_swap=0)
    assert "blocks_to_swap" not in training(registry["flux"].plan(job, SdScripts(checkout, python=sys.executable)))


def test_a_wrong_value_of_a_setting_is_told_once(registry, pictures, checkout):
    job = flux_job(registry, pictures, mixed_precision="float16")
    errors = registry["flux"].check(job, SdScripts(checkout, python=sys.executable)).errors
    assert [p.code for p in errors if p.params.get("setting") == "mixed_precision"] == ["setting_choice"]


# ---- the real ones ----

CHECKOUT, PYTHON = (os.environ.get(f"CINDERLORA_SD_SCRIPTS{name}") for name in ("", "_PYTHON"))


@pytest.mark.sd_scripts
@pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts")
class TestRealScripts:
    @pytest.mark.parametrize("script", SHIPPED)
    def test_the_shipped_ones_are_those_of_their_commit(self, script):
        if not (SdScripts(CHECKOUT).commit or "").startswith("48d368fa"):
            pytest.skip("not the commit that the shipped ones are of")
        assert known_arguments(script, Path(CHECKOUT)) == known_arguments(script)

    @pytest.mark.skipif(not PYTHON, reason="CINDERLORA_SD_SCRIPTS_PYTHON names no interpreter")
    @pytest.mark.parametrize(
        "script", sorted(path.name for path in Path(CHECKOUT).glob("*train_network.py")) if CHECKOUT else []
    )
    def test_every_script_takes_what_its_parser_says(self, script):
        found = checkout_arguments(Path(CHECKOUT), script)
        assert found.complete and not found.notes
        assert found == what_argparse_says(Path(CHECKOUT), script, python=PYTHON)


def test_the_way_argparse_keeps_its_actions():
    """What `extract` relies on, beside the documented: where a parser keeps its arguments, and what they are called."""
    parser = argparse.ArgumentParser(add_help=False)
    action = parser.add_argument("--a", action="store_true")
    assert parser._actions == [action] and type(action).__name__ == "_StoreTrueAction"
