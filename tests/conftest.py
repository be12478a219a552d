"""Fixtures for every test."""

from collections.abc import Iterator

import pytest
from hub import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Yield an empty Hub on loopback; its libraries run in subprocesses, see :mod:`hub`."""
    with Hub() as running:
        yield running
