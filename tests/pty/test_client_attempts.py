"""Calls that a service, an edge or a provider refuses: they are tried again or reported. Sans-I/O."""

from __future__ import annotations

import pytest

from tunnel.errors import ConnectionLost, ProviderError, TunnelError
from tunnel.protocol.upgrade import Response
from tunnel.pty.client import calls
from tunnel.pty.client.calls import Attempts
from tunnel.pty.client.model import PtySize

INPUT, RESIZE = calls.send_input(1, b"x"), calls.resize(1, PtySize(24, 80))
E2B = b'{"sandboxId": "i1", "message": "The sandbox was not found", "code": 502}'


def refusal(status: int, body: bytes = b"") -> tuple[TunnelError, bool]:
    """The error of an answer, and whether the service may have the call."""
    answer = Response(status, "", ())
    answer.body = body
    return calls.error_of(answer, "https://box.test", 1), calls.may_have_passed(answer)


@pytest.mark.parametrize(
    ("status", "body", "unsure"),
    [
        (502, b"<html>", True),
        (504, b"", True),
        (502, E2B, False),  # E2B's edge found no sandbox, so nobody has the input
        (503, b"", False),
        (429, b"", False),
        (503, b'{"code": "unavailable"}', False),  # the service itself
    ],
)
def test_input_that_another_service_may_have_is_not_typed_twice(status: int, body: bytes, unsure: bool) -> None:
    error, arrived = refusal(status, body)
    assert arrived == unsure
    for call, ours in ((INPUT, True), (RESIZE, False)):
        assert Attempts(call, "box", now=0.0, retry_for=60.0).again(error, now=59.0, arrived=arrived, ours=ours) > 0
    attempts = Attempts(INPUT, "box", now=0.0, retry_for=60.0)
    if unsure:
        with pytest.raises(ConnectionLost, match="it is unknown whether"):
            attempts.again(error, now=1.0, arrived=arrived, ours=False)
    else:
        assert attempts.again(error, now=1.0, arrived=arrived, ours=False) > 0


@pytest.mark.parametrize("code", ["api-failed", "api-quota", "sandbox-busy"])
def test_a_provider_that_cannot_help_now_is_asked_again_within_the_limit(code: str) -> None:
    error = ProviderError(code, api="a", sandbox="i", message="m", problem="p")
    attempts = Attempts(INPUT, "box", now=0.0, retry_for=60.0)
    assert attempts.again(error, now=59.0, arrived=False, ours=False) > 0
    with pytest.raises(ProviderError):
        attempts.again(error, now=60.0, arrived=False, ours=False)


def test_a_failure_that_waiting_cannot_cure_is_reported_at_once() -> None:
    paused, (refused, arrived) = ProviderError("sandbox-paused", sandbox="i"), refusal(403)
    for error in (paused, refused):
        with pytest.raises(TunnelError) as caught:
            Attempts(INPUT, "box", now=0.0, retry_for=60.0).again(error, now=1.0, arrived=arrived, ours=True)
        assert caught.value is error
