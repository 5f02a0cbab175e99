"""Services for the tests of the service: one for many questions, and one of its own for a test that ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bed.processes import Bed
from tests.pty.beds import Service, start_service
from tests.pty.raw import Raw

StartService = Callable[..., Service]


@pytest.fixture(scope="module")
def service(shared_bed: Bed) -> Iterator[Service]:
    """A service with default options."""
    service = start_service(shared_bed)
    yield service
    service.process.end()


@pytest.fixture
def raw(service: Service) -> Iterator[Raw]:
    with Raw(service.url) as raw:
        yield raw


@pytest.fixture
def start(bed: Bed) -> StartService:
    """Start a service with the given options."""
    return lambda *options: start_service(bed, *options)
