"""What mypy and a reader get of the public names: types all through, and a docstring everywhere."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import rawdl
from tests.embedding.conftest import GUARD, ROOT, Program
from tests.origin import Origin, Script

pytestmark = pytest.mark.one_version

HERE = Path(__file__).parent
PROJECT = HERE / "typed_project.py"
BODY = bytes(range(256)) * 400
# The promise, and what is reached from it: the pure half, a ready policy, and what `Client.stats` returns.
MODULES = ["rawdl", "rawdl.errors", "rawdl.proto", "rawdl.proto.url", "rawdl.proto.fields", "rawdl.proto.proxy"]
MODULES += ["rawdl.proto.decoding", "rawdl.policies", "rawdl.stats"]
MISTAKES = """\
import rawdl
client = rawdl.Client(max_concurrent="10")  # arg-type
task = client.download_file(url=b"http://example.org/")  # arg-type
client.download_file(url="", conections=4)  # call-arg
rawdl.download_file(url="", conections=4)  # call-arg
rawdl.download_file(file_path="a")  # call-arg
rawdl.download("", "a", exists=True)  # arg-type
client.resume({}, conections=4)  # call-arg
client.download_metalink(b"", conections=4)  # call-arg
task.on_progress_update(lambda event: event.header)  # attr-defined
length: str = task.result().data_length  # assignment
task.state = rawdl.TaskState.QUEUED  # misc
rawdl.Retry(5)  # call-arg
rawdl.TLS(minimum_version="1.1")  # arg-type
rawdl.Nothing  # attr-defined
client.stats().bytes_received.decode()  # attr-defined
"""


def mypy(folder: Path, *paths: Path) -> tuple[int, str]:
    """Run it over files as over those of a project: strictly, and with rawdl as a package from elsewhere."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-error-summary"]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    run = subprocess.run(
        [*command, *map(str, paths)], cwd=folder, env=environment, capture_output=True, text=True, timeout=4 * GUARD
    )
    return run.returncode, run.stdout + run.stderr


def test_a_project_that_uses_everything_is_well_typed(tmp_path: Path) -> None:
    assert mypy(tmp_path, PROJECT) == (0, "")


def test_the_examples_are_well_typed(tmp_path: Path) -> None:
    for module in ("trio", "rich"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    untyped = {"with_tqdm"}  # tqdm's types are a package of their own
    shutil.copytree(HERE / "examples", tmp_path, dirs_exist_ok=True)
    assert mypy(tmp_path, *(path for path in tmp_path.glob("*.py") if path.stem not in untyped)) == (0, "")


def test_mistakes_are_found(tmp_path: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    code, told = mypy(tmp_path, tmp_path / "mistakes.py")
    found = set(re.findall(r"^mistakes\.py:(\d+): error: .*\[(\S+)\]$", told, re.MULTILINE))
    lines = enumerate(MISTAKES.splitlines(), 1)
    assert found == {(str(number), line.partition("  # ")[2]) for number, line in lines if "  # " in line}, told
    assert code == 1


def test_the_project_uses_every_public_name() -> None:
    tree = ast.parse(PROJECT.read_text(encoding="utf-8"))
    used = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    used |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rawdl"
    }
    assert set(rawdl.__all__) <= used


def test_the_project_does_what_it_says(program: Program, origin: Origin) -> None:
    told = program.run(PROJECT, origin.serve("/a", Script(body=BODY)), str(program.folder))
    length = str(len(BODY))
    once = [
        f"{sorted([length, 'kept', 'the user'])} ['200 {length}', '{length} of {length}']",
        "3 completed, 1 failed, 0 queued",
        f"awaited {length}",
    ]
    assert told.splitlines() == [f"rawdl {rawdl.__version__}", *once * 3, "blames the user"]
    assert {path.name: path.read_bytes() for path in program.folder.iterdir()} == {"a": BODY, "b": BODY}


def public() -> list[tuple[str, object]]:
    """Return what is public, by its whole name: classes, functions, and what they define that is one."""
    found: dict[str, object] = {}
    for name in MODULES:
        module = import_module(name)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name and key[0] != "_"]
        for key in getattr(module, "__all__", own):
            value = getattr(module, key)
            if not inspect.isclass(value) and not inspect.isfunction(value):
                continue
            whole = f"{value.__module__}.{key}"
            found[whole] = value
            members = vars(value).items() if inspect.isclass(value) else ()
            found |= {
                f"{whole}.{member}": thing
                for member, thing in members
                if member[0] != "_"
                and (inspect.isfunction(thing) or isinstance(thing, property | classmethod | staticmethod))
            }
    return sorted(found.items())


def test_every_public_thing_has_a_docstring() -> None:
    things = dict(public())
    assert {"rawdl.client.Client.stats", "rawdl.errors.Timeout", "rawdl.proto.url.URL.origin"} <= things.keys()
    assert [name for name, thing in things.items() if not inspect.getdoc(thing)] == []
    assert [name for name, thing in things.items() if inspect.isclass(thing) and not vars(thing).get("__doc__")] == []
