"""TLS of the bridge: loading and reloading certificate and key, and the handshake on a socket."""

from __future__ import annotations

import asyncio
import socket
import ssl

from tunnel.errors import UsageError, spelled
from tunnel.net.async_sockets import close_gently, readable, writable
from tunnel.net.files import ANY, STRICT, check_regular
from tunnel.server.tls_channel import ServerTLSChannel


class Certificates:
    """The files of ``tls_cert``, ``tls_key`` (None: the key is in the certificate's file) and ``tls_client_ca``.

    ``context`` is the one for new connections.
    """

    def __init__(self, cert: str, key: str | None, client_ca: str | None) -> None:
        """Read the files; raises UsageError if one cannot be used."""
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; if that raises UsageError, the old context stays in use."""
        self.context = self._load()

    def expiring(self) -> list[str]:
        """Return a line for each certificate, including client CAs, that has expired or will expire within 14 days.

        The check needs the package cryptography, which nothing else of TLS needs; without it a line says so.
        """
        try:
            from tunnel.pki.inspection import soon_ending  # late, as importing cryptography takes long
        except ImportError:
            return ["the package cryptography is not installed, so nothing warns before certificates expire"]
        except OSError as exc:  # no descriptor is left to open a module; tunnels continue
            return [f"expiry dates of certificates cannot be checked: {exc.strerror or exc}"]
        lines = soon_ending(self._cert, "tls_cert")
        return lines if self._client_ca is None else [*lines, *soon_ending(self._client_ca, "tls_client_ca")]

    def _load(self) -> ssl.SSLContext:
        # Anyone who can write the key or the list of trusted CAs can get access.
        for setting, path, guard in (
            ("tls_cert", self._cert, STRICT if self._key is None else ANY),
            ("tls_key", self._key, STRICT),
            ("tls_client_ca", self._client_ca, STRICT),
        ):
            if path is not None:
                _check_file(setting, path, guard)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # The same in every Python: since 3.13 the defaults refuse client CAs with minor deviations from RFC 5280, which
        # are usual in companies, and accept an intermediate CA as a trust anchor.
        context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])  # WebSocket over HTTP/2 is a different protocol
        encrypted = False

        def no_password() -> str:
            # Without this function OpenSSL would ask for the password on the terminal.
            nonlocal encrypted
            encrypted = True
            return ""

        try:
            context.load_cert_chain(self._cert, self._key, password=no_password)
        except OSError as exc:
            raise _bad_file("tls_cert", self._cert, _pair_problem(exc, encrypted=encrypted)) from exc
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except OSError as exc:
                raise _bad_file("tls_client_ca", self._client_ca, "it contains no PEM certificate") from exc
        return context


async def start_tls(context: ssl.SSLContext, sock: socket.socket) -> ServerTLSChannel:
    """Perform the server's side of the TLS handshake on ``sock``, which is closed on failure.

    There is no time limit: the caller must set one. Raises OSError, including ssl.SSLError.
    """
    try:
        channel = ServerTLSChannel(sock, context)
        while not channel.shake_hands():
            if channel.is_blocked:
                await writable(channel.fileno())
            elif channel.pending:
                await asyncio.sleep(0)  # let others run
            else:
                await readable(channel.fileno())
        return channel
    except ssl.SSLError:
        await close_gently(sock)  # so that the client receives OpenSSL's alert with the reason
        raise
    except BaseException:
        sock.close()
        raise


def _pair_problem(exc: OSError, *, encrypted: bool) -> str:
    if encrypted:
        return "the key is encrypted; decrypt it with: openssl pkey -in KEY -out FILE"
    if isinstance(exc, ssl.SSLError):
        if exc.reason == "KEY_VALUES_MISMATCH":
            return f"the key ({spelled('tls_key')}) belongs to another certificate"
        return "it is not a PEM certificate, its key is missing, or one of them is damaged"
    return exc.strerror or str(exc)


def _check_file(setting: str, path: str, guard: str) -> None:
    """Check a file first: ssl's own errors do not name it, and ssl would block on a FIFO."""
    try:
        check_regular(path, guard=guard)
    except OSError as exc:
        raise _bad_file(setting, path, exc.strerror or str(exc)) from exc


def _bad_file(setting: str, path: str, reason: str) -> UsageError:
    return UsageError(code="file", setting=setting, path=path, reason=reason)
