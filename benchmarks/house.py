"""Measure how the package is laid out: rooms, import directions, long files, and what its functions are given.

    python -m benchmarks.house           # a line for each measure, with its aim
    python -m benchmarks.house --list    # and what each counts

Nothing is imported or run: the sources are parsed. tests/test_floor_plan.py holds the directions of imports.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "al_lightning"
ROOT = "."
"""The room of modules that lie loose in the package."""
LONG = 300
AIMS = {
    "loose modules": 9,
    "long files": 5,
    "Any in signatures of steps": 0,
    "functions that take Run": 15,
    "functions that take a Turn, which is all of a run but the commit": 20,
    "commit calls outside learner.py": 0,
    "circles of modules": 0,
    "two-way folders": 0,
    "docstrings that begin with a question word": 0,
    "public classes without an example": 0,
}
_QUESTIONS = ("what", "whether", "how", "where", "who", "which", "why", "when")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def modules() -> dict[str, ast.Module]:
    """Parse every module of the package, by its dotted name without the package's own."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "__init__"] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, *, typing: bool = True) -> set[str]:
    """List the modules of the package that a module imports at its top.

    Args:
        name: of the module.
        typing: whether imports for type checkers alone count.
    """
    return {target for node in _top(modules()[name].body, typing) for target in _targets(node)}


def _top(body: Iterable[ast.stmt], typing: bool) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield node
        elif isinstance(node, ast.If) and (typing or "TYPE_CHECKING" not in ast.dump(node.test)):
            yield from _top(node.body, typing)
            yield from _top(node.orelse, typing)
        elif isinstance(node, ast.Try):
            yield from _top(node.body, typing)


def _targets(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        yield from (name.removeprefix("al_lightning.") for name in names if name.startswith("al_lightning."))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "al_lightning":
        inside = (node.module or "").partition(".")[2]
        for alias in node.names:
            longer = f"{inside}.{alias.name}" if inside else alias.name
            yield longer if longer in modules() else inside or "__init__"


def room(name: str) -> str:
    """Name the folder a module lies in."""
    return name.partition(".")[0] if "." in name or (PACKAGE / name).is_dir() else ROOT


def arrows(*, typing: bool = True) -> dict[str, set[str]]:
    """Map every room to the rooms its modules import from."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in modules():
        if name != "__init__":
            found[room(name)] |= {room(target) for target in imports(name, typing=typing)} - {room(name)}
    return dict(found)


def circles(*, typing: bool = True) -> list[list[str]]:
    """Find the groups of modules that import each other, straight or round about (Tarjan 1972)."""
    graph = {name: imports(name, typing=typing) for name in modules() if name != "__init__"}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name] & graph.keys():
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group: list[str] = []
            while not group or group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found)


def _functions(tree: ast.AST) -> Iterator[_Function]:
    return (node for node in ast.walk(tree) if isinstance(node, _Function))


def _annotations(function: _Function) -> Iterator[ast.expr]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    yield from (a.annotation for a in every if a is not None and a.annotation is not None)


def _says(annotation: ast.expr, name: str) -> bool:
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(annotation))


def _signatures_with_any() -> Iterator[str]:
    for name, tree in modules().items():
        for function in _functions(tree) if name.startswith("steps.") else ():
            parts = [*_annotations(function), *([function.returns] if function.returns else [])]
            if any(_says(part, "Any") for part in parts):
                yield f"{name}.{function.name}"


def _takes(part: str) -> Iterator[str]:
    for name, tree in modules().items():
        for function in _functions(tree):
            if any(_says(annotation, part) for annotation in _annotations(function)):
                yield f"{name}.{function.name}"


def _commits() -> Iterator[str]:
    for name, tree in modules().items():
        for node in ast.walk(tree) if name != "learner" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit":
                owner = ast.unparse(node.func.value)
                if owner.split(".")[-1] in ("run", "self"):
                    yield f"{name}:{node.lineno} {owner}.commit"


def _documented() -> Iterator[tuple[str, str]]:
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, _Function | ast.ClassDef) and (text := ast.get_docstring(node)):
                yield f"{name}.{node.name}", text


def _public_classes() -> Iterator[tuple[str, str]]:
    exported = {name for name, tree in modules().items() if (PACKAGE / name.replace(".", "/")).is_dir()}
    names = {n for name in ({"__init__"} | exported) & modules().keys() for n in _exports(modules()[name])}
    for name, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                yield f"{name}.{node.name}", ast.get_docstring(node) or ""


def _exports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            yield from (
                c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant) and isinstance(c.value, str)
            )


def measures() -> dict[str, list[str]]:
    """Collect what each measure of :data:`AIMS` counts."""
    rooms = arrows()
    lengths = {p.relative_to(PACKAGE): len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    return {
        "loose modules": [name for name in modules() if room(name) == ROOT and name != "__init__"],
        "long files": [f"{path} {lines}" for path, lines in sorted(lengths.items()) if lines > LONG],
        "Any in signatures of steps": sorted(_signatures_with_any()),
        "functions that take Run": sorted(_takes("Run")),
        "functions that take a Turn, which is all of a run but the commit": sorted(_takes("Turn")),
        "commit calls outside learner.py": sorted(_commits()),
        "circles of modules": [" ".join(group) for group in circles()],
        "two-way folders": sorted(
            {" ".join(sorted((a, b))) for a in rooms for b in rooms[a] if a in rooms.get(b, ()) and ROOT not in (a, b)}
        ),
        "docstrings that begin with a question word": [
            f"{name}: {text.splitlines()[0]}" for name, text in _documented() if text.split()[0].lower() in _QUESTIONS
        ],
        "public classes without an example": [
            name
            for name, text in _public_classes()
            if not name.startswith("errors.") and not any(mark in text for mark in (">>>", "Example", "::"))
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the measures; the exit code is 0 where every one is at its aim."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--list", action="store_true", help="what each measure counts")
    options = parser.parse_args(arguments)
    found = measures()
    for name, counted in found.items():
        print(f"{len(counted):4} {name} (aim: at most {AIMS[name]})")
        for item in counted if options.list else ():
            print(f"       {item}")
    return int(any(len(counted) > AIMS[name] for name, counted in found.items()))


if __name__ == "__main__":
    sys.exit(main())
