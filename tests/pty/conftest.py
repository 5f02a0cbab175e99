"""Terminal services: one that many tests share, and one for each test that stops it; and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.bed.processes import Bed
from tests.pty.beds import Service, start_service
from tests.pty.browsing import chromium, new_context, start_page_service
from tests.pty.raw import Raw
from tunnel import Sandbox
from tunnel.pki.tokens import make_token

StartService = Callable[..., Service]


@pytest.fixture(scope="module")
def service(shared_bed: Bed) -> Iterator[Service]:
    """A service with default options."""
    service = start_service(shared_bed)
    yield service
    service.process.end()


@pytest.fixture
def sandbox(service: Service) -> Iterator[Sandbox]:
    """Our own client, connected to that service."""
    with Sandbox(service.url) as sandbox:
        yield sandbox


@pytest.fixture
def raw(service: Service) -> Iterator[Raw]:
    with Raw(service.url) as raw:
        yield raw


@pytest.fixture
def start(bed: Bed) -> StartService:
    """Start a service with the given options."""
    return lambda *options: start_service(bed, *options)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a new token."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    make_token(str(path))
    return path


@pytest.fixture(scope="module")
def guarded(shared_bed: Bed, token_file: Path) -> Iterator[Service]:
    """A service that needs a token."""
    service = start_service(shared_bed, "--pty-token-file", str(token_file))
    yield service
    service.process.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def web(shared_bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with its page, for `TOKEN`; ``box.test`` leads there, too, in the browser of these tests."""
    service = start_page_service(shared_bed, tmp_path_factory.mktemp("page"), "--pty-host", "box.test")
    yield service
    service.process.end()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page; the test fails if a script fails or the policy is violated."""
    with new_context(browser) as context:
        yield context.new_page()
