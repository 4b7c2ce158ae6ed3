"""Imports point down only, the protocol half does no I/O, no shell is run, and importing the package costs little.

The allowed imports stand here as data.  What they are held against is read from the source, function bodies included.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import rawdl

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rawdl"

# Each module with those of ours that it may import when it is loaded, or later.  A name with a dot at the end stands
# for all modules below it.
LAYERS: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "proto.": {"errors", "version", "proto."},
    "sockets": set(),
    "loop": {"sockets"},
    "resolver": {"errors", "loop"},
    "profile": set(),
    "results": {"errors", "profile", "proto."},
    "connection": {"errors", "loop", "resolver"},
    "sessions": {"proto."},
    "dial": {"errors", "sockets", "loop", "resolver", "connection", "passage", "sessions", "tls", "proto."},
    "tls": {"errors", "loop", "connection", "sessions"},
    "passage": {"errors", "loop", "connection", "proto."},
    "pool": {"errors", "loop", "connection", "resolver", "proto."},
    "sinks": {"errors"},
    "reserve": set(),
    "destination": {"errors", "sinks"},
    "journal": {"errors", "sinks", "destination"},
    "ledger": {"errors", "journal", "proto."},
    "partfile": {"errors", "sinks", "destination", "journal", "ledger", "reserve"},
    "continuation": {"errors", "sinks", "partfile", "proto."},
    "verify": {"sinks", "partfile", "proto."},
    "interrupts": set(),
    "driver": {"interrupts", "loop"},
    "trace": {"driver", "errors", "task", "proto."},
    "task": {"errors", "driver", "results", "proto."},
    "alarm": {"loop", "proto."},
    "throttle": {"loop", "proto."},
    "lanes": {"errors", "loop", "connection", "sinks", "proto."},
    "job": {"errors", "loop", "dial", "lanes", "pool", "sinks", "partfile", "task", "proto."},
    "fetch": {"errors", "loop", "alarm", "throttle", "connection", "dial", "lanes", "pool", "job", "results", "sinks"}
    | {"proto."},
    "crew": {
        "errors",
        "loop",
        "alarm",
        "throttle",
        "pool",
        "job",
        "fetch",
        "partfile",
        "sinks",
        "continuation",
        "results",
    }
    | {"proto."},
    "telling": {"loop", "results", "task", "proto."},
    "store": {"errors", "job", "partfile", "sinks", "continuation", "verify", "proto."},
    "inquiry": {"errors", "job", "pool", "sinks", "task", "proto."},
    "retrieval": {
        "inquiry",
        "errors",
        "loop",
        "throttle",
        "pool",
        "job",
        "fetch",
        "crew",
        "sinks",
        "store",
        "telling",
        "results",
    }
    | {"task", "proto."},
    "engine": {"errors", "loop", "job", "fetch", "retrieval", "store", "telling", "results", "task", "proto."},
    "refusal": {"errors", "job", "task", "proto."},
    "aio": {"errors", "driver", "results", "task"},
    "stats": {"job", "task", "proto."},
    "options": {"errors", "results", "proto."},
    "passwords": {"proto."},
    "cookies": {"proto."},
    "policies": set(),
    "arguments": {"dial", "errors", "job", "passwords", "resolver", "sinks", "tls", "proto."},
    "defaults": {"arguments", "cookies", "errors", "job", "pool", "tls", "proto."},
    "client": {
        "arguments",
        "throttle",
        "defaults",
        "errors",
        "loop",
        "resolver",
        "connection",
        "dial",
        "tls",
        "pool",
        "sinks",
        "destination",
        "partfile",
        "results",
    }
    | {"driver"}
    | {"task", "trace", "job", "engine", "refusal", "aio", "stats", "proto."},
    "__init__": {"version", "errors", "results", "profile", "sinks", "task", "tls", "client", "proto."},
    "cli.": {
        "__init__",
        "arguments",
        "version",
        "cookies",
        "errors",
        "results",
        "profile",
        "sinks",
        "task",
        "tls",
        "client",
        "proto.",
        "cli.",
    },
    "__main__": {"cli."},
}
# Upward imports inside a function: what they load is rarely needed, and is above.  Each with its reason.
LATE = {
    ("task", "aio"): "`await task` loads the asyncio bridge, which knows tasks",
}
FOREIGN = {
    "h11": {"proto.http11"},
    "socksio": {"proto.socks"},
    "truststore": {"tls"},
    "brotli": {"proto.decoding"},
    "backports": {"proto.decoding"},
    "compression": {"proto.decoding"},
    "idna": {"proto.url"},
    "rich": {"cli."},
    "trustme": {"cli.loopback"},
    "httptools": {"cli.compare"},
}
NO_IO = {"socket", "ssl", "selectors", "select", "threading", "_thread", "time", "os", "io", "asyncio", "random"}
NO_IO |= {"logging", "subprocess", "signal", "tempfile", "pathlib", "shutil", "http", "urllib", "concurrent", "queue"}
NO_IO |= {"multiprocessing", "datetime", "secrets", "uuid", "fcntl", "mmap"}
# Who may read a clock: everybody else takes `now` from the loop.
CLOCKS = {"loop", "cli."}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "base", "types", "constants", "misc"}
THREADS = {"threading"}
SLOW = {"ssl", "asyncio", "http.client", "urllib.request", "logging", "h11", "threading", "email", "tempfile"}
# Who may run a program, and what runs one by a shell, or opens a file as a desktop would (E7).
PROGRAMS = {"cli.loopback"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell", "startfile"}
EXECUTES = re.compile(r"(spawn|exec)[lv]p?e?|posix_spawnp?|create_subprocess_exec")
RUNNERS = {"subprocess", "pty", "multiprocessing", "webbrowser"}

COMPUTED = "a name that is computed"


class Import(NamedTuple):
    """One import: the module it stands in, what it names, and when it is carried out."""

    importer: str
    target: str
    when: str  # "loading", "late" (in a function) or "typing"


def source_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).replace(".__init__", "")


def modules() -> dict[str, str]:
    """Return the source of each module by its name within the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {source_of(path): path.read_text(encoding="utf-8") for path in paths}


def imports_of(importer: str, source: str) -> list[Import]:
    return [Import(importer, target, when) for target, when in walk(ast.parse(source), "loading")]


def walk(node: ast.AST, when: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, when) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        yield from ((f"{node.module}.{alias.name}", when) for alias in node.names)
    elif isinstance(node, ast.Call) and any(part in ast.dump(node.func) for part in ("__import__", "import_module")):
        yield (node.args[0].value if isinstance(node.args[0], ast.Constant) else COMPUTED, "late")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        when = "late"
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        when = "typing"
    for child in ast.iter_child_nodes(node):
        yield from walk(child, when)


def inner(target: str, known: set[str]) -> str | None:
    """Return which of our modules a dotted name leads to; None where it is somebody else's."""
    parts = target.split(".")
    if parts[0] != "rawdl":
        return None
    for end in range(len(parts), 1, -1):
        if (name := ".".join(parts[1:end])) in known:
            return name
    return "__init__"


def covers(rule: str, name: str) -> bool:
    return name == rule or (rule.endswith(".") and f"{name}.".startswith(rule))


def rule_of(name: str) -> str:
    found = [rule for rule in LAYERS if covers(rule, name)]
    assert len(found) == 1, f"the module {name} is in no layer: say in LAYERS what it may import"
    return found[0]


def violations(sources: dict[str, str]) -> list[str]:
    """Return each import that breaks a rule, as a sentence."""
    found = [item for name, source in sources.items() for item in imports_of(name, source)]
    return [sentence for item in found for sentence in breaches(item, set(sources))]


def breaches(item: Import, known: set[str]) -> Iterator[str]:
    importer, target, when = item
    mine = inner(target, known)
    allowed = LAYERS[rule_of(importer)]
    if mine is None:
        top = target.split(".")[0]
        if importer == "__init__" and target == COMPUTED:
            return  # its table of public names, which has a test of its own
        if covers("proto.", importer) and top in NO_IO:
            yield f"{importer} imports {top}: the protocol half does no I/O and reads no clock"
        elif top == "time" and when != "typing" and not any(covers(rule, importer) for rule in CLOCKS):
            yield f"{importer} imports time: only the loop owns a clock"
        elif top not in sys.stdlib_module_names and not any(covers(rule, importer) for rule in FOREIGN.get(top, ())):
            yield f"{importer} imports {top}: a dependency that is not its"
    elif when == "typing" or (when == "late" and (importer, mine) in LATE):
        return
    elif not any(covers(rule, mine) for rule in allowed):
        yield f"{importer} imports {mine}, which is not below it"


def shells(sources: dict[str, str]) -> list[str]:
    """Return whatever runs a shell, or a program in a module that has none to run, as sentences."""
    return [sentence for name, source in sources.items() for sentence in runs_in(name, source)]


def runs_in(importer: str, source: str) -> Iterator[str]:
    for item in imports_of(importer, source):
        if item.target.split(".")[0] in RUNNERS and importer not in PROGRAMS:
            yield f"{importer} imports {item.target}: it has no program to run"
        if item.target.split(".")[-1] in SHELLS:
            yield f"{importer} imports {item.target}, which runs a shell"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (node.attr in SHELLS or EXECUTES.fullmatch(node.attr)):
            yield f"{importer} has {ast.unparse(node)}, which runs a shell or a program"
        elif isinstance(node, ast.keyword) and node.arg == "shell":
            yield f"{importer} has shell={ast.unparse(node.value)}"


# The package as it is


def test_imports_point_down_only() -> None:
    assert violations(modules()) == []


def test_public_names_come_from_below_too() -> None:
    assert [home for home in rawdl._HOME.values() if not any(covers(rule, home) for rule in LAYERS["__init__"])] == []


def test_the_layers_have_an_order() -> None:
    """Otherwise "down" would mean nothing: the rules themselves must have no circle."""
    left = {rule: {below for below in allowed if below != rule} for rule, allowed in LAYERS.items()}
    while left:
        lowest = {rule for rule, below in left.items() if not below & left.keys()}
        assert lowest, f"these import one another in a circle: {sorted(left)}"
        left = {rule: below for rule, below in left.items() if rule not in lowest}


def test_the_rules_speak_of_modules_that_exist() -> None:
    known = set(modules())
    for rule in {*LAYERS, *(below for allowed in LAYERS.values() for below in allowed)}:
        assert any(covers(rule, name) for name in known), f"there is no module {rule}"
    seen = {(item.importer, inner(item.target, known)) for name in known for item in imports_of(name, modules()[name])}
    assert seen >= LATE.keys(), "a late import that is allowed, and is not there"


def test_no_module_is_named_after_nothing() -> None:
    assert [name for name in modules() if NAMELESS & set(name.split("."))] == []


def test_every_module_says_what_it_is() -> None:
    silent = [name for name, source in modules().items() if source.strip() and not ast.get_docstring(ast.parse(source))]
    assert silent == []


def test_the_loop_is_small_enough_to_be_read_in_one_go() -> None:
    assert len((PACKAGE / "loop.py").read_text().splitlines()) <= 300


def test_E7_no_shell_is_run() -> None:
    assert shells(modules()) == []


def test_importing_the_package_loads_nothing_slow() -> None:
    assert loaded_by("import rawdl") & SLOW == set()
    assert loaded_by("import rawdl; rawdl.TooLarge, rawdl.ProgressUpdate, rawdl.TaskState") & (SLOW - THREADS) == {
        "h11"
    }


def test_plain_http_needs_neither_tls_nor_asyncio() -> None:
    assert loaded_by("import rawdl; rawdl.Client().close()") & (SLOW - THREADS) == {"h11"}


def test_the_protocol_half_loads_none_of_the_other() -> None:
    loaded = {name for name in loaded_by("import rawdl.proto") if name.startswith("rawdl.")}
    assert {name for name in loaded if not name.startswith("rawdl.proto")} == {"rawdl.errors", "rawdl.version"}


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a statement loads in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


# The checker itself: it can fail


PLANTED = [
    ("proto.url", "import socket", "no I/O"),
    ("proto.url", "import os.path", "no I/O"),
    ("proto.url", "from time import monotonic", "no I/O"),
    ("proto.framing", "def f():\n    def g():\n        import random", "no I/O"),
    ("proto.framing", "class A:\n    def f(self):\n        from asyncio import sleep", "no I/O"),
    ("proto.fields", "if TYPE_CHECKING:\n    import logging", "no I/O"),
    ("proto.fields", "try:\n    import ssl\nexcept ImportError:\n    pass", "no I/O"),
    ("proto.fields", "f = lambda: __import__('threading')", "no I/O"),
    ("proto.fields", "import importlib\nimportlib.import_module('io')", "no I/O"),
    ("proto.framing", "import h11", "not its"),
    ("connection", "def f():\n    import h11", "not its"),
    ("pool", "from requests import get", "not its"),
    ("pool", "import_module(f'rawdl.{name}')", "not its"),
    ("proto.url", "from rawdl.loop import Loop", "not below"),
    ("proto.url", "from rawdl import loop", "not below"),
    ("proto.url", "import rawdl.loop", "not below"),
    ("proto.url", "def f():\n    from rawdl.client import Client", "not below"),
    ("proto.url", "import rawdl", "not below"),
    ("errors", "from rawdl.proto.url import URL", "not below"),
    ("loop", "from rawdl.errors import DownloadError", "not below"),
    ("connection", "from rawdl.tls import Handshake", "not below"),
    ("connection", "def f():\n    from rawdl.pool import Pool", "not below"),
    ("task", "from rawdl.client import Client", "not below"),
    ("engine", "from rawdl.client import Client", "not below"),
    ("client", "from rawdl.cli.main import main", "not below"),
    ("driver", "import time", "only the loop owns a clock"),
    ("pool", "def f():\n    from time import time", "only the loop owns a clock"),
]
HARMLESS = [
    ("proto.url", "import re\nfrom rawdl.errors import InvalidURL\nfrom rawdl.proto import fields"),
    ("proto.http11", "import h11"),
    ("task", "def f():\n    from rawdl.aio import wait"),
    ("connection", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rawdl.tls import Handshake"),
    ("task", "if typing.TYPE_CHECKING:\n    from rawdl.client import Client"),
    ("loop", "import time"),
    ("cli.main", "import time\nimport rawdl\nfrom rawdl.cli.get import get"),
    ("cli.main", "from rawdl import Client, errors"),
]


@pytest.mark.parametrize(("importer", "source", "breach"), PLANTED)
def test_a_planted_import_is_found(importer: str, source: str, breach: str) -> None:
    known = dict.fromkeys(modules(), "")
    found = violations({**known, importer: source})
    assert len(found) == 1 and breach in found[0] and found[0].startswith(f"{importer} imports ")


@pytest.mark.parametrize(("importer", "source"), HARMLESS)
def test_a_harmless_import_is_let_through(importer: str, source: str) -> None:
    assert violations({**dict.fromkeys(modules(), ""), importer: source}) == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("sinks", "import subprocess"),
        ("sinks", "def f():\n    from subprocess import run"),
        ("cli.get", "__import__('subprocess')"),
        ("cli.loopback", "subprocess.run(command, shell=True)"),
        ("cli.loopback", "Popen(command, shell=how)"),
        ("cli.loopback", "subprocess.getoutput(command)"),
        ("cli.get", "os.system(command)"),
        ("cli.get", "run = os.popen"),
        ("cli.get", "from os import system"),
        ("cli.get", "os.execvp(name, arguments)"),
        ("aio", "await asyncio.create_subprocess_shell(command)"),
    ],
)
def test_E7_a_planted_shell_is_found(importer: str, source: str) -> None:
    found = shells({importer: source})
    assert len(found) == 1 and found[0].startswith(f"{importer} ")


def test_E7_a_program_without_a_shell_is_let_through() -> None:
    assert shells({"cli.loopback": "import subprocess\nsubprocess.Popen([sys.executable], env=environment)"}) == []


def test_a_module_that_is_in_no_layer_is_found() -> None:
    with pytest.raises(AssertionError, match="in no layer"):
        violations({"utils": "import re"})
    with pytest.raises(AssertionError, match="absolute"):
        violations({"pool": "from . import errors"})
