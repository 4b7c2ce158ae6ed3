"""Which seeds a test runs with, and how to run it with one of them again."""

from __future__ import annotations

import os

import pytest

VARIABLE = "RAWDL_SIM_SEED"


def seeds(n: int) -> pytest.MarkDecorator:
    """Run a test with seeds 0 to n - 1 as its argument `seed`, or with the one in RAWDL_SIM_SEED only."""
    only = os.environ.get(VARIABLE)
    chosen = range(n) if only is None else [int(only)]
    return pytest.mark.parametrize("seed", chosen, ids=[f"seed{seed}" for seed in chosen])


def replay_command(item: pytest.Item) -> str | None:
    """Return the shell command that runs this test with this seed again, None if it has no seed."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or "seed" not in callspec.params:
        return None
    return f'{VARIABLE}={callspec.params["seed"]} python -m pytest "{item.nodeid}"'
