"""
The plan of the rooms as rules: who may import whom, where a library is known, how large a thing may grow,
what is named once.

Each rule has its reason in its docstring. A rule about a room that is not there yet holds by itself. What a
rule forbids is found in the syntax trees of the product; its tests and benchmarks are not held to it, unless
it says so.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("streams", "projections", "processors")
FILE_LINES_MAX, FILE_LINES_MEDIAN_MAX = 400, 130
FUNCTION_LINES_MAX, FUNCTION_LINES_P90_MAX = 40, 16
PARAMETERS_MAX = 5
LINE_MAX = 110
ANY_MAX = 250
SIDE_DOORS_MAX = 0.10
PRAGMA = re.compile(r"  # (noqa|type:|pyright:).*")  # is for a tool, and must stand on the line it is about

# Methods in the place of Faust's own, which calls them with these parameters.
FAUST_CALLS = {"processors/transport/producer.py": {"send", "send_and_wait"}}

# A program of others, that computes the same answers another way: its shape is not ours to choose.
NOT_OURS = {"processors/commands/slice/expected.py"}

# A name of a system stream that means something else: a key of an AsyncAPI document, and what a view is
# called.
NO_STREAM = {"streams/schema/asyncapi.py": "operations", "projections/built_in/imports.py": "imports"}


Function = ast.FunctionDef | ast.AsyncFunctionDef


class Import(NamedTuple):
    """One name that a module takes from a module or a package of ours."""

    module: str
    target: str
    line: int


class Source:
    """One file of the product. name: as it is imported."""

    def __init__(self, path: Path) -> None:
        self.path = path.relative_to(ROOT)
        self.is_package = path.name == "__init__.py"
        parts = self.path.parent.parts if self.is_package else self.path.with_suffix("").parts
        self.name = ".".join(("aurastream", *parts))
        self.package = self.name if self.is_package else self.name.rpartition(".")[0]
        self.text = path.read_text()
        self.lines = self.text.splitlines()
        self.tree = ast.parse(self.text)

    def at(self, node: ast.AST) -> str:
        """Where a finding is, as editors take it."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of its tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def functions(self) -> list[Function]:
        """All of them, methods and inner ones too."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def imported(self) -> list[tuple[str, str | None, int]]:
        """Whatever is imported anywhere in it, also in functions and for type checkers alone: module, name,
        line.
        """
        names: list[tuple[str, str | None, int]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                names += [(alias.name, None, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [(node.module or "", alias.name, node.lineno) for alias in node.names]
        return names


class House:
    """The product, read once."""

    def __init__(self) -> None:
        files = (path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))
        self.sources = {source.name: source for source in map(Source, files)}

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources.values())

    @cached_property
    def imports(self) -> list[Import]:
        """Every import of ours by ours; its target is the module that holds the name, or the package that
        shows it.
        """
        return [
            Import(source.name, self._target(module, name), line)
            for source in self
            for module, name, line in source.imported
            if module.split(".")[0] == "aurastream" and self._target(module, name) in self.sources
        ]

    def _target(self, module: str, name: str | None) -> str:
        inner = f"{module}.{name}"
        return inner if inner in self.sources else module

    @cached_property
    def between(self) -> dict[tuple[str, str], list[str]]:
        """The same by every part of the tree that an end is in, as findings."""
        rooms: dict[tuple[str, str], list[str]] = defaultdict(list)
        for found in self.imports:
            text = f"{self.sources[found.module].path}:{found.line} imports {found.target}"
            for within in parts_of(found.module):
                for beyond in parts_of(found.target):
                    rooms[within, beyond].append(text)
        return rooms

    def package(self, module: str) -> str:
        """The package that a module is in, or is."""
        return self.sources[module].package

    def crossing(self, within: str, beyond: str) -> list[str]:
        """Imports by one part of the tree of another, as findings."""
        return self.between.get((within, beyond), [])

    def users(self, library: str) -> set[str]:
        """The modules that import a library, or a module of it."""
        return {
            source.name
            for source in self
            for module, name, _ in source.imported
            if is_in(module, library) or is_in(f"{module}.{name}", library)
        }


def parts_of(module: str) -> list[str]:
    """The module, the package it is in, the package that is in, and so on."""
    steps = module.split(".")
    return [".".join(steps[:count]) for count in range(1, len(steps) + 1)]


def is_in(module: str, part: str) -> bool:
    """Whether a module is a part of the tree, or in it."""
    return module == part or module.startswith(part + ".")


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other, larger than one (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for after in edges.get(node, ()):
            if after not in index:
                visit(after)
                low[node] = min(low[node], low[after])
            elif after in stack:
                low[node] = min(low[node], index[after])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                circles.append(sorted(group))

    for node in list(edges):
        if node not in index:
            visit(node)
    return circles


def length(function: Function) -> int:
    """Its lines, docstring and signature too, decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """How many a caller has to know; self, cls, * and ** are not counted."""
    all_of_them = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(parameter.arg not in ("self", "cls") for parameter in all_of_them)


@pytest.fixture(scope="module")
def house() -> House:
    """Nothing changes it: read once for all rules."""
    return House()


def test_the_log_imports_nothing_of_ours(house: House) -> None:
    """It must be readable, and right, whatever is built on top of it."""
    found = house.crossing("aurastream.streams", "aurastream.projections")
    found += house.crossing("aurastream.streams", "aurastream.processors")

    assert found == []


def test_the_views_import_only_the_log(house: House) -> None:
    """A view is a fold of the log: it must not depend on who folds it, nor on a process that hosts it."""
    assert house.crossing("aurastream.projections", "aurastream.processors") == []


ORDERS = [
    # A client of a platform must serve a poller and a person at the shell alike; a worker is on top, as a
    # stranger's is.
    (("connect", "plugins", "show", "logs"), ("platforms",), ("toolkit",), ("effects",), ("workers",)),
    # An effect is handled the same in a test, at the shell and in a host; only the host knows Faust's life,
    # and only
    # the transport Faust's wires.
    (("effects",), ("host",), ("transport",)),
    # What can be asked of the past, or read from a file, is asked by verbs and by pages alike: it knows
    # neither.
    (("history", "importing", "sql"), ("web", "commands")),
]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(ORDERS[0], id="of workers"),
        pytest.param(ORDERS[1], id="of hosts"),
        pytest.param(ORDERS[2], id="of answers"),
    ],
)
def test_rooms_import_only_rooms_below_them(house: House, order: tuple[tuple[str, ...], ...]) -> None:
    """What is below can be read, tested and used alone; a change above cannot break it. The reasons of each
    order stand with it.
    """
    found: list[str] = []
    for height, rooms in enumerate(order):
        above = [room for higher in order[height + 1 :] for room in higher]
        for room in rooms:
            for upper in above:
                found += house.crossing(f"aurastream.processors.{room}", f"aurastream.processors.{upper}")

    assert found == []


def test_nobody_imports_a_worker(house: House) -> None:
    """Workers come by entry points alone, ours as strangers' do: one can be left out, replaced or added
    without a change.
    """
    workers = "aurastream.processors.workers"
    found = [hit for hit in house.imports if is_in(hit.target, workers) and not is_in(hit.module, workers)]

    assert found == []


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        # A library that answers people prints and exits; nothing below may do that to a caller.
        ("click", {"processors.commands"}),
        # Faust hosts the workers and could be changed for another host: the fewer know it the better.
        ("faust", {"processors.host", "processors.transport"}),
        # Pages are answered by one process of ours and one gateway, with one set of headers, bounds and
        # errors.
        ("aiohttp.web", {"processors.web", "processors.host.pages"}),
    ],
    ids=["click", "faust", "aiohttp.web"],
)
def test_a_library_is_known_only_in_its_rooms(house: House, library: str, homes: set[str]) -> None:
    """A library that is known everywhere can be neither replaced nor stubbed by its own tests. The reason of
    each stands with it.
    """
    strangers = {
        name for name in house.users(library) if not any(is_in(name, f"aurastream.{home}") for home in homes)
    }

    assert strangers == set()


def test_no_packages_import_each_other_in_a_circle(house: House) -> None:
    """Rooms in a circle are one room: neither can be understood, moved or loaded without the other. A package
    and the packages inside it are different rooms; imports for type checkers alone count, as readers follow
    them too.
    """
    edges: dict[str, set[str]] = defaultdict(set)
    for found in house.imports:
        if house.package(found.module) != house.package(found.target):
            edges[house.package(found.module)].add(house.package(found.target))

    assert circles(edges) == []


def test_no_files_import_each_other_in_a_circle(house: House) -> None:
    """Which of them is imported first would decide what works; imports for type checkers alone count."""
    edges: dict[str, set[str]] = defaultdict(set)
    for found in house.imports:
        if found.module != found.target:
            edges[found.module].add(found.target)

    assert circles(edges) == []


def test_rooms_are_entered_by_their_faces(house: House) -> None:
    """A package's __init__ is what it promises; a module behind it may change on any day. One import in ten
    may go through a side door, where the face would load what a verb does not use.
    """
    crossing = [
        found for found in house.imports if house.package(found.module) != house.package(found.target)
    ]
    side = [found for found in crossing if not house.sources[found.target].is_package]

    assert len(side) <= SIDE_DOORS_MAX * len(crossing), Counter(found.target for found in side).most_common()


def test_every_package_says_what_it_promises_and_shows(house: House) -> None:
    """The docstring of __init__ is where a reader begins, and __all__ is what may be relied on."""
    lacking = [
        str(source.path)
        for source in house
        if source.is_package
        and ("__all__" not in source.text or len(ast.get_docstring(source.tree) or "") < LINE_MAX // 2)
    ]

    assert lacking == []


def test_no_file_is_longer_than_a_few_screens(house: House) -> None:
    """Beyond 400 lines nobody reads a file whole: it is two. Most are much shorter."""
    long = {str(source.path): len(source.lines) for source in house if len(source.lines) > FILE_LINES_MAX}

    assert long == {}


def test_most_files_are_short(house: House) -> None:
    """The median is what a reader meets."""
    assert statistics.median(len(source.lines) for source in house if source.text) <= FILE_LINES_MEDIAN_MAX


def test_no_function_needs_scrolling(house: House) -> None:
    """A function that needs scrolling is two: the parent decides, the leaves compute."""
    long = {
        f"{source.at(function)} {function.name}": length(function)
        for source in house
        for function in source.functions
        if length(function) > FUNCTION_LINES_MAX and str(source.path) not in NOT_OURS
    }

    assert long == {}


def test_most_functions_are_short(house: House) -> None:
    """Nine of ten: the rest are loops whose parts make no sense alone."""
    lengths = sorted(length(function) for source in house for function in source.functions)

    assert lengths[len(lengths) * 9 // 10] <= FUNCTION_LINES_P90_MAX


def is_called_by_click(function: Function) -> bool:
    """Whether click hands it the options of a verb, each one by its name."""
    return any(
        re.search(r"\b(command|group|option|argument|pass_context)\b", ast.unparse(decorator))
        for decorator in function.decorator_list
    )


def test_no_function_has_more_parameters_than_a_reader_holds(house: House) -> None:
    """Six things that belong together are a struct, with a name and a sentence. Exempt are verbs, whose
    options click names, and the methods that Faust calls.
    """
    many = {
        f"{source.at(function)} {function.name}": parameters(function)
        for source in house
        for function in source.functions
        if parameters(function) > PARAMETERS_MAX
        and not is_called_by_click(function)
        and function.name not in FAUST_CALLS.get(str(source.path), ())
    }

    assert many == {}


def test_lines_fit_and_none_is_kept_from_the_formatter(house: House) -> None:
    """Two files side by side on one screen; a line that does not fit wants a name for a part of it. Tests
    and benchmarks too.
    """
    others = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    files = {str(source.path): source.lines for source in house}
    files |= {str(path.relative_to(ROOT)): path.read_text().splitlines() for path in others}
    skip = "fmt: " + "skip"
    found = [
        f"{path}:{number}"
        for path, lines in files.items()
        for number, line in enumerate(lines, start=1)
        if len(PRAGMA.sub("", line)) > LINE_MAX or skip in line
    ]

    assert found == []


def test_few_values_have_no_type(house: House) -> None:
    """What is Any is checked by nobody. What is left comes from redis replies and from users' states, and
    says so.
    """
    uses = Counter(
        {
            str(source.path): sum(isinstance(node, ast.Name) and node.id == "Any" for node in source.nodes)
            for source in house
        }
    )

    assert uses.total() < ANY_MAX, uses.most_common(20)


def test_a_class_has_a_name_of_its_own(house: House) -> None:
    """Two classes of one name are taken for each other in a log, an error and a search."""
    homes: dict[str, list[str]] = defaultdict(list)
    for source in house:
        for node in source.nodes:
            if isinstance(node, ast.ClassDef):
                homes[node.name.lstrip("_")].append(source.at(node))

    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_module_is_named_for_being_useful(house: House) -> None:
    """A module is named for what it knows: utils grows until it knows everything."""
    assert [source.name for source in house if re.search(r"util|helper|misc", source.name)] == []


def test_system_streams_are_named_once(house: House) -> None:
    """Six lists of them stood in the product, and one that forgot an entry broke a verb. streams/facts.py
    names them.
    """
    literals = [
        f"{source.at(node)} {node.value!r}"
        for source in house
        if source.name != "aurastream.streams.facts"
        for node in source.nodes
        if isinstance(node, ast.Constant)
        and node.value in ("operations", "imports", "replays")
        and NO_STREAM.get(str(source.path)) != node.value
    ]

    assert literals == []


def test_every_test_says_why_it_matters() -> None:
    """The name says what holds; the sentence says what would happen to whom if it did not."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, Function) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_tests_are_where_their_room_is() -> None:
    """Who knows the room finds its tests, and a room that has moved takes them along."""
    folders = [
        path
        for room in ROOMS
        for path in (ROOT / "tests" / room).rglob("*/")
        if "__pycache__" not in path.parts
    ]
    lost = [
        str(path.relative_to(ROOT))
        for path in folders
        if any(path.glob("test_*.py")) and not (ROOT / path.relative_to(ROOT / "tests")).is_dir()
    ]

    assert lost == []
