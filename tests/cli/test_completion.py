"""``--print-completion``: every flag is in what each shell gets, and the shells that are here take it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from rawdl.cli.completion import SHELLS
from rawdl.cli.grammar import COMMANDS, get_parser
from rawdl.cli.main import _COMMANDS
from tests.cli.conftest import GUARD, Command

pytestmark = pytest.mark.one_version

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
    code = """source ./script; offer() { COMP_WORDS=(rawdl "$@"); COMP_CWORD=$#; _rawdl; echo "${COMPREPLY[@]}"; }
        offer --retr; offer re; offer -v re"""
    done = subprocess.run([bash, "-c", code], cwd=rawdl.folder, capture_output=True, text=True, timeout=GUARD)
    offers = ["--retries --retry-delay --retry-max-time", "record replay", ""]
    assert (done.stdout.splitlines(), done.stderr) == (offers, "")


def test_fish_completes_a_flag(rawdl: Command) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("there is no fish here")
    (rawdl.folder / "script").write_bytes(rawdl("--print-completion", "fish").stdout)
    code = "source script; for line in 'rawdl --retr' 'rawdl re'; complete -C $line; end"
    environment = {**rawdl.environment, "HOME": str(rawdl.folder)}
    done = subprocess.run(
        [fish, "--no-config", "-c", code],
        cwd=rawdl.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    offered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert (offered, done.stderr) == (["--retries", "--retry-delay", "--retry-max-time", "record", "replay"], "")


def test_zsh_completes_a_flag(rawdl: Command) -> None:
    zsh, pexpect = shutil.which("zsh"), pytest.importorskip("pexpect", reason="pexpect is not installed")
    if zsh is None:
        pytest.skip("there is no zsh here")
    (rawdl.folder / "_rawdl").write_bytes(rawdl("--print-completion", "zsh").stdout)
    environment = {**rawdl.environment, "HOME": str(rawdl.folder), "TERM": "dumb"}
    shell = pexpect.spawn(zsh, ["-f", "-i"], cwd=rawdl.folder, env=environment, timeout=GUARD, encoding="utf-8")
    try:
        shell.sendline("fpath=($PWD $fpath); autoload -Uz compinit && compinit -u -D; print SET")
        shell.expect("\nSET")
        for line, offered in (("rawdl --retry-m", "max-time"), ("rawdl dem", "demo")):
            shell.send(f"{line}\t")
            shell.expect(offered)
            shell.send("\x15")  # ^U: the line is forgotten
    finally:
        shell.close(force=True)


def test_every_command_is_offered() -> None:
    assert set(COMMANDS) == set(_COMMANDS)
