"""``--print-completion``: every flag is in what each shell gets, and the shells that are here take it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rawdl.cli.completion import SHELLS
from rawdl.cli.grammar import get_parser
from tests.cli.conftest import GUARD, Command

FLAGS = [flag for action in get_parser()._actions for flag in action.option_strings]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_flag_is_there(rawdl: Command, shell: str) -> None:
    outcome = rawdl("--print-completion", shell)
    assert (outcome.code, outcome.stderr) == (0, "")
    words = outcome.stdout.decode().replace("[", " ").replace("*", " ").replace('"', " ").split()
    # fish has them without their dashes
    missing = [flag for flag in FLAGS if (flag.lstrip("-") if shell == "fish" else flag) not in words]
    assert missing == []


def test_a_shell_that_is_none(rawdl: Command) -> None:
    outcome = rawdl("--print-completion", "cmd")
    assert (outcome.code, "bash, fish, zsh, not cmd" in outcome.complaint) == (2, True)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_it(rawdl: Command, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    path = rawdl.folder / "script"
    path.write_bytes(rawdl("--print-completion", shell).stdout)
    done = subprocess.run([program, "-n", str(path)], capture_output=True, text=True, timeout=GUARD)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_completes_a_flag(rawdl: Command) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    (rawdl.folder / "script").write_bytes(rawdl("--print-completion", "bash").stdout)
    code = 'source ./script; COMP_WORDS=(rawdl --retr); COMP_CWORD=1; _rawdl; echo "${COMPREPLY[@]}"'
    done = subprocess.run([bash, "-c", code], cwd=rawdl.folder, capture_output=True, text=True, timeout=GUARD)
    assert (done.stdout, done.stderr) == ("--retries --retry-delay --retry-max-time\n", "")
