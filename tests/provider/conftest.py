"""A cloud with sandboxes whose target is an echo, and another whose target is an sshd."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.bed.processes import Bed
from tests.bed.targets import Target
from tests.provider.cloud import Cloud


@pytest.fixture(scope="session")
def cloud_tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """The certificate of API and edge, and the authority that it hangs on."""
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("cloud") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("*.cloud.localhost", "127.0.0.1", "localhost").configure_cert(context)
    return context, ca_file


@pytest.fixture
def cloud(bed: Bed, echo_target: Target) -> Iterator[Cloud]:
    """A cloud without TLS, so that a client of it needs ``ws://`` in its template."""
    with Cloud(bed, echo_target.port) as cloud:
        yield cloud


def environment_of(cloud: Cloud, folder: Path) -> dict[str, str]:
    """What a user of a cloud has set that has no TLS, which the default URL asks for."""
    template = f"ws://{{port}}-{{host}}.{cloud.domain}"
    more = {"WSTUNNEL_PY_URL": template, "WSTUNNEL_PY_PROVIDER": "e2b", "XDG_CACHE_HOME": str(folder / "cache")}
    return {**cloud.environment(), **more}


@pytest.fixture
def tunnel_environ(cloud: Cloud, tmp_path: Path) -> dict[str, str]:
    return environment_of(cloud, tmp_path)
