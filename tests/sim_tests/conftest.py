"""Fixtures for the simulated network."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.sim_tests.fetch import SECURE_URL, URL


@pytest.fixture
def trusting(ca_file: Path) -> rawdl.TLS:
    return rawdl.TLS(ca_file=str(ca_file))


@pytest.fixture(params=["http", "https"])
def site(request: pytest.FixtureRequest, server_context: ssl.SSLContext, trusting: rawdl.TLS) -> dict[str, Any]:
    """How to listen and what to ask, over plain TCP and over TLS."""
    if request.param == "http":
        return {"port": 80, "tls": None, "url": URL, "client": {}}
    return {"port": 443, "tls": server_context, "url": SECURE_URL, "client": {"tls": trusting}}
