"""The text for an error number, on systems that have one and on Windows, which has none."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from tunnel.net.error_texts import error_text


def test_the_systems_own_numbers_have_the_systems_words() -> None:
    assert error_text(errno.ENOENT) == "No such file or directory"
    assert error_text(10_061) == os.strerror(10_061), "a system without a table of its own"


def test_winsocks_numbers_have_its_words_without_the_full_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {10_000: "The first.", 10_061: "Connection refused.", 5: "None of Winsock's."}
    monkeypatch.setattr(socket, "errorTab", table, raising=False)
    assert (error_text(10_000), error_text(10_061)) == ("The first", "Connection refused")
    assert error_text(10_062) == os.strerror(10_062)
    assert error_text(5) == os.strerror(5)
