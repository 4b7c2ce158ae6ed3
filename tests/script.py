"""Run a piece of Python in a fresh interpreter, in which every warning is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIMIT = 60.0  # seconds: hang guard


def run_script(code: str, *args: str | Path, quiet: bool = True) -> str:
    """Run it, with `args` as sys.argv[1:], and return its standard output.

    It must exit with 0; and with `quiet` it must not write to standard error, which is where an ignored exception, a
    ResourceWarning or a traceback goes.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code), *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert not (quiet and done.stderr), done.stderr
    return done.stdout
