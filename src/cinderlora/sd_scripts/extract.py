"""The arguments that a training script takes, read from its source. Pure: nothing of it is imported or run.

What a script's `setup_parser()` does is followed statement by statement, through the functions it calls in other files
of the checkout; where it has none, what its `main()` does until it parses. The `add_argument` calls met on the way are
repeated on an `argparse` parser of our own, with plain data only. So defaults, flags, groups and conflicts come out as
argparse makes them.

Of the language there is what such functions are written with: assignments, `if`, calls with any kind of parameters,
imports in all forms, names, lists, sums and comparisons. A value that cannot be told is None, and its argument says so
in `unknown`; where arguments themselves may have been missed, the result is not `complete`.

Tried on all 269 commits of sd-scripts up to v0.10.1 that touch arguments, and on the 82 up to July 2026 (v0.11.1) that
touch its code: where its files are Python, all is followed.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any

from attrs import field, frozen

__all__ = ["Extracted", "Read", "extract_arguments"]

Read = Callable[[str], str | None]
"""The text of a file by its path from the script's folder ("library/train_util.py"); None where there is none."""


@frozen
class Extracted:
    """What was read of a script.

    `arguments` by their dest, each a table of action, choices, const, default, dest, flags, is_boolean, nargs, required
    and type as argparse has them (action and type by name), and `unknown`, the names of those that could not be told;
    `complete`, whether that is all of them; `notes`, what could not be followed, each with its place.
    """

    arguments: Mapping[str, Mapping[str, Any]]
    complete: bool = True
    notes: tuple[str, ...] = ()


def extract_arguments(script: str, read: Read) -> Extracted | None:
    """The arguments of a script, or None where it has no `setup_parser()` that gives a parser, and no `main()` that
    parses with one.

    Raises nothing of its own, whatever the sources are; what `read` raises goes through.
    """
    try:
        return _Reader(read).arguments(script)
    except (_TooMuch, RecursionError):
        return None


# ---- what a name can stand for, besides plain data, parsers and types ----

# Sources are other people's: calls without end and lists that grow and grow must come to an end. Real parsers take
# about 2,000 steps, 3 calls deep.
_STEPS, _DEPTH, _LENGTH = 100_000, 30, 1_000


class _TooMuch(Exception):
    """More work than any real parser is."""


class _Parses(Exception):
    """The script has its parser, and parses with it: what follows is the program."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


class _Unknown:
    """Something that cannot be told."""


_UNKNOWN = _Unknown()


@frozen
class _Name:
    """A module, a class, or something outside of the checkout, by its full name: "library.utils", "pathlib.Path"."""

    dotted: str


@frozen(eq=False)
class _Module:
    """A file: what each of its names was last bound to, and the modules that it takes all names of."""

    path: str
    package: str
    names: Mapping[str, Any]
    stars: tuple[str, ...]
    values: dict[str, Any] = field(factory=dict)


@frozen
class _Imported:
    """A module, or a name in it."""

    module: str
    name: str | None = None


@frozen(eq=False)
class _Function:
    node: ast.FunctionDef | ast.Lambda
    module: _Module
    around: Mapping[str, Any]
    """The names of the function that it lies in."""


@frozen(eq=False)
class _Method:
    owner: Any
    name: str


@frozen
class _Return:
    value: Any


@frozen(eq=False)
class _Call:
    """A call's values; `whole` is False where a `*` or `**` could not be spread out."""

    node: ast.Call
    module: _Module
    args: list[Any]
    kwargs: dict[str, Any]
    whole: bool


_Parser = argparse._ActionsContainer  # a parser, or a group of one
_PARSER_OPTIONS = {"add_help", "allow_abbrev", "argument_default", "conflict_handler", "prefix_chars"}
_PARSING = {"parse_args", "parse_known_args"}
_GROUPS = {"add_argument_group", "add_mutually_exclusive_group"}
_PARAMETERS = {"action", "choices", "const", "default", "nargs", "required", "type"}
_ACTIONS = {"store", "store_true", "store_false", "store_const", "append", "append_const", "extend", "count", "help"}
_BOOLEAN = {"StoreTrueAction", "StoreFalseAction", "BooleanOptionalAction"}
_NARGS = {None, "?", "*", "+", argparse.REMAINDER, argparse.SUPPRESS, *range(_LENGTH)}
_TYPES = {"builtins.str": str, "builtins.int": int, "builtins.float": float, "builtins.bool": bool}
_COPIES: Mapping[str, Callable[[Any], Any]] = {
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.sorted": sorted,
}
_CONSTANTS = {
    f"argparse.{name}": getattr(argparse, name)
    for name in ("SUPPRESS", "OPTIONAL", "ZERO_OR_MORE", "ONE_OR_MORE", "REMAINDER", "BooleanOptionalAction")
}
_COMPARISONS: Mapping[type, Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


class _Reader:
    """One pass through a script's parser: what was read so far, and what was found."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._modules: dict[str, _Module | None] = {}
        self._unknown: dict[argparse.Action, set[str]] = {}
        self._notes: list[str] = []
        self._complete = True
        self._steps = self._depth = 0

    def arguments(self, script: str) -> Extracted | None:
        module = self._module(script, "")
        if module is None:
            return None
        parser = self._parser(module)
        if not isinstance(parser, argparse.ArgumentParser):
            return None
        found = {action.dest: self._described(action) for action in parser._actions}
        return Extracted(dict(sorted(found.items())), self._complete, tuple(self._notes))

    def _parser(self, module: _Module) -> Any:
        """What `setup_parser()` gives; the parser that `main()` parses with, where there is no such function."""
        try:
            setup = self._global(module, "setup_parser")
            if isinstance(setup, _Function):
                return self._run(setup, [], {})
            main = self._global(module, "main")
            if isinstance(main, _Function):
                self._run(main, [], {})
        except _Parses as end:
            return end.parser
        return None

    def _described(self, action: argparse.Action) -> dict[str, Any]:
        kind = type(action).__name__.removeprefix("_")
        unknown = self._unknown.get(action)
        return {
            "action": kind,
            "choices": None if action.choices is None else list(action.choices),
            "const": action.const,
            "default": action.default,
            "dest": action.dest,
            "flags": list(action.option_strings),
            "is_boolean": kind in _BOOLEAN,
            "nargs": action.nargs,
            "required": action.required,
            "type": getattr(action.type, "__name__", None),
            **({"unknown": sorted(unknown)} if unknown else {}),
        }

    def _note(self, module: _Module, node: ast.AST, what: str, *, missed: bool = False) -> None:
        """Keep what could not be followed; `missed` where arguments may have been."""
        self._complete = self._complete and not missed
        note = f"{module.path}:{getattr(node, 'lineno', 0)}: {what}"
        if note not in self._notes and len(self._notes) < 100:
            self._notes.append(note)

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _STEPS:
            raise _TooMuch

    # ---- modules and their names ----

    def _module(self, path: str, package: str) -> _Module | None:
        if path not in self._modules:
            text = self._read(path)
            tree = None if text is None else _parsed(text)
            self._modules[path] = None if tree is None else _Module(path, package, *_bindings(tree, package))
        return self._modules[path]

    def _named(self, dotted: str) -> _Module | None:
        """The file of a dotted name; the script's own folder comes first on Python's path."""
        if not all(part.isidentifier() for part in dotted.split(".")):
            return None  # so that nothing outside of the checkout is ever asked for
        path = dotted.replace(".", "/")
        return self._module(f"{path}.py", dotted.rpartition(".")[0]) or self._module(f"{path}/__init__.py", dotted)

    def _home(self, module: _Module, name: str, seen: tuple[_Module, ...] = ()) -> _Module | None:
        """The module that binds a name: this one, or one that it takes all names of."""
        self._step()
        if name in module.names:
            return module
        for star in () if module in seen else module.stars:
            source = self._named(star)
            home = source and self._home(source, name, (*seen, module))
            if home:
                return home
        return None

    def _global(self, module: _Module, name: str) -> Any:
        """What a name stands for at the top of a module."""
        home = self._home(module, name)
        if home is None:
            dotted = f"builtins.{name}"
            return _TYPES.get(dotted) or (_Name(dotted) if hasattr(builtins, name) else _UNKNOWN)
        if name not in home.values:
            home.values[name] = _UNKNOWN  # for a name that leads back to itself
            bound = home.names[name]
            if isinstance(bound, ast.FunctionDef):
                home.values[name] = _Function(bound, home, {})
            elif isinstance(bound, ast.expr):
                home.values[name] = self._value(bound, home, {})
            elif isinstance(bound, _Imported):
                home.values[name] = self._imported(bound)
            elif isinstance(bound, _Name):
                home.values[name] = bound
        return home.values[name]

    def _imported(self, what: _Imported) -> Any:
        module = _Name(what.module)
        return module if what.name is None else self._attribute(module, what.name)

    def _attribute(self, owner: Any, name: str) -> Any:
        if not isinstance(owner, _Name):
            return _UNKNOWN if isinstance(owner, _Unknown) else _Method(owner, name)
        module = self._named(owner.dotted)
        if module and self._home(module, name):
            return self._global(module, name)
        dotted = f"{owner.dotted}.{name}"
        return _CONSTANTS.get(dotted, _Name(dotted))

    # ---- statements ----

    def _run(self, function: _Function, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What a call of a function gives."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise _TooMuch
        names = {**function.around, **self._parameters(function, args, kwargs)}
        if isinstance(function.node, ast.Lambda):
            value = self._value(function.node.body, function.module, names)
        else:
            end = self._block(function.node.body, function.module, names)
            value = end.value if end else None
        self._depth -= 1
        return value

    def _parameters(self, function: _Function, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """A call's values by the function's names; one that is not given, or cannot be told, is unknown."""
        takes = function.node.args
        positional = [a.arg for a in (*takes.posonlyargs, *takes.args)]
        named = [a.arg for a in takes.kwonlyargs]
        defaults = dict(zip(reversed(positional), reversed(takes.defaults), strict=False))
        defaults |= {name: node for name, node in zip(named, takes.kw_defaults, strict=True) if node is not None}
        names: dict[str, Any] = dict.fromkeys([*positional, *named], _UNKNOWN)
        names |= {name: self._value(node, function.module, function.around) for name, node in defaults.items()}
        names |= dict(zip(positional, args, strict=False))
        others = {name: value for name, value in kwargs.items() if name not in names}
        names |= {name: value for name, value in kwargs.items() if name in names}
        if takes.vararg:
            names[takes.vararg.arg] = tuple(args[len(positional) :])
        if takes.kwarg:
            names[takes.kwarg.arg] = others
        return names

    def _block(self, body: Iterable[ast.stmt], module: _Module, names: dict[str, Any]) -> _Return | None:
        for node in body:
            self._step()
            end = self._statement(node, module, names)
            if end is not None:
                return end
        return None

    def _statement(self, node: ast.stmt, module: _Module, names: dict[str, Any]) -> _Return | None:
        if isinstance(node, ast.Return):
            return _Return(self._value(node.value, module, names) if node.value else None)
        if isinstance(node, ast.Raise):
            return _Return(_UNKNOWN)
        if isinstance(node, ast.If):
            return self._if(node, module, names)
        if isinstance(node, ast.With):
            return self._block(node.body, module, names)
        if isinstance(node, ast.Try):
            return self._block([*node.body, *node.orelse, *node.finalbody], module, names)
        if isinstance(node, ast.Expr):
            self._value(node.value, module, names)
        elif isinstance(node, ast.Assign) and all(isinstance(t, (ast.Name, ast.Attribute)) for t in node.targets):
            value = self._value(node.value, module, names)
            names.update((target.id, value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = self._value(node.value, module, names) if node.value else _UNKNOWN
        elif isinstance(node, ast.FunctionDef):
            names[node.name] = _Function(node, module, names)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((name, self._imported(what)) for name, what in _imports(node, module.package)[0])
        elif not isinstance(node, (ast.Pass, ast.Assert, ast.Global)):
            self._skip(node, module, names)
            _forget(node, names)
        return None

    def _if(self, node: ast.If, module: _Module, names: dict[str, Any]) -> _Return | None:
        test = self._value(node.test, module, names)
        if _is_data(test):
            return self._block(node.body if test else node.orelse, module, names)
        # What either way adds can be given; what is set in one of them is not known afterwards.
        self._note(module, node, "a condition that cannot be told: both ways are taken")
        ends = [self._block(body, module, names) for body in (node.body, node.orelse)]
        _forget(node, names)
        return ends[0] if all(ends) else None

    def _skip(self, node: ast.AST, module: _Module, names: Mapping[str, Any]) -> None:
        """Go past what is not followed; where it has to do with a parser, arguments may be missed."""
        if any(_reaches_parser(names.get(n.id)) for n in ast.walk(node) if isinstance(n, ast.Name)):
            self._note(module, node, f"{type(node).__name__}: not followed", missed=True)

    # ---- expressions ----

    def _value(self, node: ast.expr, module: _Module, names: Mapping[str, Any]) -> Any:
        self._step()
        if isinstance(node, ast.Constant):
            return node.value if _is_plain(node.value) else _UNKNOWN
        if isinstance(node, ast.Name):
            return names[node.id] if node.id in names else self._global(module, node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(self._value(node.value, module, names), node.attr)
        if isinstance(node, ast.Call):
            return self._call(node, module, names)
        if isinstance(node, ast.Lambda):
            return _Function(node, module, names)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            values = self._spread(node.elts, module, names)
            return _UNKNOWN if values is None else tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.Dict):
            keys = [None if key is None else self._value(key, module, names) for key in node.keys]
            values = [self._value(value, module, names) for value in node.values]
            known = all(isinstance(key, str) for key in keys)
            return dict(zip(keys, values, strict=True)) if known else _UNKNOWN
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _sum(self._value(node.left, module, names), self._value(node.right, module, names))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            value = self._value(node.operand, module, names)
            if isinstance(node.op, ast.Not):
                return not value if _is_data(value) else _UNKNOWN
            return -value if isinstance(value, (int, float)) else _UNKNOWN
        if isinstance(node, ast.BoolOp):
            value = _UNKNOWN
            for part in node.values:
                value = self._value(part, module, names)
                if not _is_data(value) or bool(value) == isinstance(node.op, ast.Or):
                    break
            return value if _is_data(value) else _UNKNOWN
        if isinstance(node, ast.IfExp):
            test = self._value(node.test, module, names)
            return self._value(node.body if test else node.orelse, module, names) if _is_data(test) else _UNKNOWN
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
            return self._comparison(node, module, names)
        self._skip(node, module, names)
        return _UNKNOWN

    def _comparison(self, node: ast.Compare, module: _Module, names: Mapping[str, Any]) -> Any:
        left, right = (self._value(side, module, names) for side in (node.left, node.comparators[0]))
        within = isinstance(node.ops[0], (ast.In, ast.NotIn))
        comparable = (
            isinstance(right, (list, tuple, dict)) and all(map(_is_plain, right)) if within else _is_plain(right)
        )
        return _COMPARISONS[type(node.ops[0])](left, right) if comparable and _is_plain(left) else _UNKNOWN

    def _spread(self, nodes: Iterable[ast.expr], module: _Module, names: Mapping[str, Any]) -> list[Any] | None:
        """The values of a list, starred ones spread out; None where that cannot be done."""
        values: list[Any] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                spread = self._value(node.value, module, names)
                if not isinstance(spread, (list, tuple)):
                    return None
                values += spread
            else:
                values.append(self._value(node, module, names))
        return values if len(values) <= _LENGTH else None

    def _call(self, node: ast.Call, module: _Module, names: Mapping[str, Any]) -> Any:
        callee = self._value(node.func, module, names)
        args = self._spread(node.args, module, names)
        whole, kwargs = args is not None, dict[str, Any]()
        for keyword in node.keywords:
            value = self._value(keyword.value, module, names)
            if keyword.arg is not None:
                kwargs[keyword.arg] = value
            elif isinstance(value, dict):
                kwargs |= value
            else:
                whole = False
        call = _Call(node, module, args or [], kwargs, whole)
        if isinstance(callee, _Function) and whole:
            return self._run(callee, call.args, kwargs)
        if isinstance(callee, _Name) and callee.dotted == "argparse.ArgumentParser":
            return self._new_parser(call)
        if isinstance(callee, _Name) and callee.dotted in _COPIES:
            return _copied(_COPIES[callee.dotted], call.args)
        if isinstance(callee, _Method) and isinstance(callee.owner, (list, dict)):
            return _of_collection(callee, call.args)
        if isinstance(callee, _Method) and isinstance(callee.owner, _Parser):
            return self._parser_method(callee.owner, callee.name, call)
        if any(map(_reaches_parser, (callee, *call.args, *kwargs.values()))):
            self._note(module, node, f"{ast.unparse(node.func)}(): not followed", missed=True)
        return _UNKNOWN

    # ---- parsers ----

    def _new_parser(self, call: _Call) -> Any:
        options = {name: call.kwargs[name] for name in _PARSER_OPTIONS & set(call.kwargs)}
        parents = call.kwargs.get("parents", ())
        known = call.whole and all(map(_is_plain, options.values())) and isinstance(parents, (list, tuple))
        if known and all(isinstance(parent, argparse.ArgumentParser) for parent in parents):
            try:
                return argparse.ArgumentParser("script", parents=parents, **options)
            except Exception as error:  # argparse says no with whatever error it runs into
                self._note(call.module, call.node, f"argparse refuses it: {error}", missed=True)
        self._note(call.module, call.node, "a parser whose options cannot be told", missed=True)
        return argparse.ArgumentParser("script")

    def _parser_method(self, parser: argparse._ActionsContainer, name: str, call: _Call) -> Any:
        if name == "add_argument":
            self._add_argument(parser, call)
        elif name in _PARSING and isinstance(parser, argparse.ArgumentParser):
            raise _Parses(parser)
        elif name in _GROUPS:
            return getattr(parser, name)()
        elif name == "set_defaults" and call.whole:
            for dest, value in call.kwargs.items():
                data = _data(value)
                parser.set_defaults(**{dest: None if data is _UNKNOWN else data})
                for action in parser._actions:
                    if data is _UNKNOWN and action.dest == dest:
                        self._unknown.setdefault(action, set()).add("default")
        else:
            self._note(call.module, call.node, f"{name}(): not followed", missed=True)
        return _UNKNOWN

    def _add_argument(self, parser: argparse._ActionsContainer, call: _Call) -> None:
        dest = call.kwargs.get("dest", "")
        if not call.whole or not all(isinstance(text, str) and text for text in call.args) or not isinstance(dest, str):
            self._note(call.module, call.node, "an argument whose name cannot be told", missed=True)
            return
        values: dict[str, Any] = {"dest": dest} if dest else {}
        unknown = set()
        for name in _PARAMETERS & set(call.kwargs):
            value = _parameter(name, call.kwargs[name])
            if value is _UNKNOWN:
                unknown.add(name)
            else:
                values[name] = value
        if "action" in unknown:  # what an action of their own makes of the others is not known either
            unknown, values = set(_PARAMETERS), {"dest": dest} if dest else {}
        try:
            action = parser.add_argument(*call.args, **values)
        except Exception as error:  # argparse says no with whatever error it runs into
            self._note(call.module, call.node, f"argparse refuses it: {error}", missed=True)
            for action in parser._actions:  # in another run it may be the one that counts
                if set(action.option_strings) & set(call.args):
                    self._unknown[action] = set(_PARAMETERS)
            return
        if unknown:
            self._unknown[action] = unknown
            self._note(call.module, call.node, f"{action.dest}: {', '.join(sorted(unknown))} cannot be told")


def _parameter(name: str, value: Any) -> Any:
    """A parameter of `add_argument`, as ours is given it."""
    if name == "type":
        return _conversion(value)
    data = value if name == "action" and value is argparse.BooleanOptionalAction else _data(value)
    allowed = {
        "action": data is value and (not isinstance(data, str) or data in _ACTIONS),
        "nargs": _is_plain(data) and data in _NARGS,
        "choices": data is None or isinstance(data, list),
        "required": isinstance(data, bool),
    }
    return data if allowed.get(name, True) else _UNKNOWN


def _conversion(value: Any) -> Any:
    """A stand-in for an argument's type that has its name: the types themselves are never called."""
    if value is None or value in _TYPES.values():
        return value
    if isinstance(value, _Name):
        name = value.dotted.rpartition(".")[2]
    elif isinstance(value, _Function):
        name = value.node.name if isinstance(value.node, ast.FunctionDef) else "<lambda>"
    else:
        return _UNKNOWN

    def convert(text: str) -> str:
        return text

    convert.__name__ = name
    return convert


# ---- plain data ----


def _is_plain(value: Any) -> bool:
    """Text, number or None, of a size that can be written down."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, str)


def _is_data(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, list, tuple, dict))


def _data(value: Any, depth: int = 0) -> Any:
    """Plain data in lists and tables, as JSON has it; unknown for anything else."""
    if _is_plain(value):
        return value
    if depth < 3 and isinstance(value, (list, tuple)) and len(value) <= _LENGTH:
        items = [_data(item, depth + 1) for item in value]
        return _UNKNOWN if _UNKNOWN in items else items
    if depth < 3 and isinstance(value, dict) and len(value) <= _LENGTH:
        table = {key: _data(item, depth + 1) for key, item in value.items()}
        return _UNKNOWN if _UNKNOWN in table.values() else table
    return _UNKNOWN


def _sum(left: Any, right: Any) -> Any:
    if type(left) is type(right) and isinstance(left, (str, list, tuple)):
        return left + right if len(left) + len(right) <= 100 * _LENGTH else _UNKNOWN
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    return left + right if numbers and _is_plain(left + right) else _UNKNOWN


def _copied(copy: Callable[[Any], Any], args: list[Any]) -> Any:
    """list(), tuple() or sorted() of something known."""
    if len(args) != 1 or not isinstance(args[0], (list, tuple, dict)):
        return _UNKNOWN
    try:
        return copy(args[0])
    except TypeError:  # sorted() of what has no order
        return _UNKNOWN


def _of_collection(method: _Method, args: list[Any]) -> Any:
    """What a method of a list or table gives; a list is changed as it would be."""
    owner, name = method.owner, method.name
    if isinstance(owner, dict):
        return list(getattr(owner, name)()) if name in {"keys", "values"} and not args else _UNKNOWN
    if name == "append" and len(args) == 1 and len(owner) < _LENGTH:
        owner.append(args[0])
    elif name == "extend" and len(args) == 1 and isinstance(args[0], (list, tuple)) and len(owner) < _LENGTH:
        owner.extend(args[0][:_LENGTH])
    else:
        owner.append(_UNKNOWN)  # changed in a way that is not followed
    return None


def _reaches_parser(value: Any) -> bool:
    """Whether something called with this could add arguments."""
    if isinstance(value, _Function):
        return any(isinstance(name, _Parser) for name in value.around.values())
    return isinstance(value.owner if isinstance(value, _Method) else value, _Parser)


def _forget(node: ast.stmt, names: dict[str, Any]) -> None:
    """Make unknown what a statement sets, or sets a part of."""
    for n in ast.walk(node):
        if isinstance(n, (ast.Name, ast.Subscript)) and not isinstance(n.ctx, ast.Load):
            target: ast.expr = n
            while isinstance(target, (ast.Subscript, ast.Attribute)):
                target = target.value
            if isinstance(target, ast.Name) and not isinstance(names.get(target.id), _Parser):
                names[target.id] = _UNKNOWN


# ---- syntax ----

_parsing = Lock()


def _parsed(text: str) -> ast.Module | None:
    # Old versions have escapes in plain strings that newer Pythons warn of, and that is not our user's concern. The
    # filters belong to the whole process, so that two threads must not change them at once.
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _bindings(tree: ast.Module, package: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the names of a module are bound to when it has run, and the modules that it takes all names of.

    A name that is changed after it was set, or set in a way that is not followed, is bound to None.
    """
    names: dict[str, Any] = {}
    stars: list[str] = []
    for node in _top_level(tree.body):
        if isinstance(node, ast.FunctionDef):
            names[node.name] = node
        elif isinstance(node, ast.ClassDef):
            names[node.name] = _Name(f"{package}.{node.name}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound, starred = _imports(node, package)
            names.update(bound)
            stars += starred
        elif isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
            names.update((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node.value
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            func = node.value.func
            owner = func.value if isinstance(func, ast.Attribute) else None
            if isinstance(owner, ast.Name) and isinstance(names.get(owner.id), ast.expr):
                names[owner.id] = None
        else:
            _forget(node, changed := dict[str, Any]())
            names.update(dict.fromkeys(changed))
    return names, tuple(stars)


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those in conditions and the like included; of two ways, the first one counts."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _top_level([*node.orelse, *node.body])
        elif isinstance(node, ast.Try):
            yield from _top_level([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _top_level(node.body)
        else:
            yield node


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> tuple[list[tuple[str, _Imported]], list[str]]:
    """What an import binds, and the module that it takes all names of, if it does."""
    if isinstance(node, ast.Import):
        return [
            (a.asname, _Imported(a.name)) if a.asname else (first := a.name.partition(".")[0], _Imported(first))
            for a in node.names
        ], []
    parents = package.split(".") if package else []
    here = parents[: len(parents) + 1 - node.level] if node.level else []
    module = ".".join([*here, *([node.module] if node.module else [])])
    if not module or node.level > len(parents):
        return [], []
    bound = [(a.asname or a.name, _Imported(module, a.name)) for a in node.names if a.name != "*"]
    return bound, [module] if any(a.name == "*" for a in node.names) else []
