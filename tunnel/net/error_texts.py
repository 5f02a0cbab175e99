"""Texts for error numbers."""

from __future__ import annotations

import os


def error_text(number: int) -> str:
    """Return the text for an errno; also for those of Winsock, which strerror does not know on Windows."""
    if number >= 10_000:  # WSABASEERR
        import socket

        text = getattr(socket, "errorTab", {}).get(number)
        if text is not None:
            return str(text).removesuffix(".")
    return os.strerror(number)
