"""The section of the README on embedding: each of its Python blocks runs as it stands there, and downloads."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.embedding.conftest import GUARD, Program
from tests.origin import Origin, Script
from tests.readme import blocks

BODY = bytes(range(256)) * 400
BLOCKS = blocks("Embed it", "python")
WAYS = [
    "run",
    "step(0.05)",
    "start",
    "await task",
    "select",
    "trio",
    "tkinter",
    "signal",
    "resource",
    "resolver",
    "sink",
]
WAYS += ["tqdm", "rich"]
# What the text before the blocks says that there is.
GIVEN = """\
client = rawdl.Client()
task = client.download_file(url=url, file_path="a.iso")
"""


def program_of(block: str) -> str:
    """Return a program around a block, which fails unless the block has downloaded something."""
    lines = [] if "rawdl.Client(" in block else [GIVEN]
    lines += [block, "assert task.done() and task.exception() is None, task", "client.close()"]
    if "sink=" in block:
        lines.append("assert sum(map(len, upload.parts)) == task.result().data_length > 0")
    body = "\n".join(lines)
    if "await" in block:
        runner = "trio" if "trio" in block else "asyncio"
        end = "trio.run(main)" if runner == "trio" else "asyncio.run(main())"
        body = f"import {runner}\nasync def main():\n{textwrap.indent(body, '    ')}\n{end}"
    return f"import sys, rawdl\nurl = sys.argv[1]\ndraw_a_frame = lambda: None\n{body}\n"


def test_there_is_a_block_for_each_way() -> None:
    assert len(BLOCKS) == len(WAYS)
    for way, block in zip(WAYS, BLOCKS, strict=True):
        assert way in block


@pytest.mark.parametrize("block", BLOCKS, ids=WAYS)
def test_each_block_of_the_readme_downloads(
    block: str, program: Program, origin: Origin, display: Callable[[], str], tmp_path: Path
) -> None:
    for module in ("trio", "tqdm", "rich"):
        if module in block:
            pytest.importorskip(module, reason=f"{module} is not installed")
    if "tkinter" in block:
        program.environment["DISPLAY"] = display()
    if "resource" in block and sys.platform != "linux":
        pytest.skip("macOS does not keep to RLIMIT_AS, and Windows has none")
    script = tmp_path / "block.py"
    script.write_text(program_of(block), encoding="utf-8")
    process = program.start(script, origin.serve("/a", Script(body=BODY, pace=2e6)))
    _, stderr = process.communicate(timeout=GUARD)
    assert process.returncode == 0, stderr.decode()
    assert "tqdm" in block or not stderr, stderr.decode()
    if "sink=" not in block:
        assert (program.folder / "a.iso").read_bytes() == BODY


def test_a_block_that_drives_nothing_would_fail(program: Program, origin: Origin, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(program_of("pass"), encoding="utf-8")
    process = program.start(script, origin.serve("/a", Script(body=BODY)))
    _, stderr = process.communicate(timeout=GUARD)
    assert process.returncode == 1 and b"AssertionError: <DownloadTask http://127.0.0.1" in stderr
    assert origin.requests == []
