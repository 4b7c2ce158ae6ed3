"""``--print-completion SHELL``: what a shell needs to complete the command's words, made from the grammar itself."""

from __future__ import annotations

import shlex
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Final

SHELLS: Final = ("bash", "fish", "zsh")
# What the value of a flag is, by the name that its help gives it: only these can be completed.
_FILES: Final = frozenset({"FILE", "DIR", "PATH", "DATA|FILE"})


def completion(shell: str, parser: ArgumentParser, commands: Iterable[str]) -> str:
    """Return a script for one of `SHELLS`: to be sourced by bash or fish, or put into zsh's ``fpath`` as ``_rawdl``.

    ``commands`` are what the first word may be in place of a URL.
    """
    actions = [action for action in parser._actions if action.option_strings]
    lines = {"bash": _bash, "fish": _fish, "zsh": _zsh}[shell](actions, " ".join(commands))
    return "\n".join(lines) + "\n"


def _bash(actions: Iterable[Action], commands: str) -> Iterator[str]:
    flags = " ".join(flag for action in actions for flag in action.option_strings)
    yield "_rawdl() {"
    yield f'    local words="{flags}"'
    yield "    COMPREPLY=()"
    yield f'    [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]] || {{ (( COMP_CWORD == 1 )) && words="{commands}" || return; }}'
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}")'
    yield "}"
    yield "complete -o default -F _rawdl rawdl"


def _fish(actions: Iterable[Action], commands: str) -> Iterator[str]:
    yield shlex.join(["complete", "-c", "rawdl", "-n", "__fish_use_subcommand", "-a", commands])
    for action in actions:
        words = ["complete", "-c", "rawdl"]
        for flag in action.option_strings:
            words += ["-l" if flag.startswith("--") else "-s", flag.lstrip("-")]
        if action.nargs != 0:
            words += ["-r"] if action.metavar in _FILES else ["-x"]
        yield shlex.join([*words, "-d", _help(action)])


def _zsh(actions: Iterable[Action], commands: str) -> Iterator[str]:
    yield "#compdef rawdl"
    yield "_arguments -s \\"
    for action in actions:
        value = "" if action.nargs == 0 else f":{action.metavar}:{'_files' if action.metavar in _FILES else ' '}"
        about = _help(action).replace("[", "\\[").replace("]", "\\]")
        for flag in action.option_strings:
            yield f"  {shlex.quote(f'*{flag}[{about}]{value}')} \\"
    yield f"  '1:URL or command:({commands})' '*:URL:_urls'"


def _help(action: Action) -> str:
    return "" if action.help in (None, SUPPRESS) else str(action.help).replace("%%", "%")
