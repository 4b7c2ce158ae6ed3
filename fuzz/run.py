"""Drive one harness by Atheris, which follows coverage.

    python fuzz/run.py NAME [ATHERIS OPTION ...] [CORPUS ...]

Options and corpora are those of libFuzzer.
"""

from __future__ import annotations

import shlex
import sys
from importlib import import_module

from smoke import HARNESSES


def main(name: str, arguments: list[str]) -> None:
    try:
        import atheris
    except ImportError:
        sys.exit("this needs Atheris: pip install atheris")
    check = import_module(name).check
    atheris.instrument_all()
    # With -minimize_crash and -jobs it runs this by a shell, and puts the options behind it.
    command = shlex.join([sys.executable, sys.argv[0], name])
    atheris.Setup([command, *arguments], check)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in HARNESSES:
        sys.exit(f"usage: run.py {{{','.join(HARNESSES)}}} [ATHERIS OPTION ...] [CORPUS ...]")
    main(sys.argv[1], sys.argv[2:])
