"""TLS at the bridge: the certificate and key, read again on request, and the handshake on a plain socket."""

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

    ``context`` is for connections that come from now on.
    """

    def __init__(self, cert: str, key: str | None, client_ca: str | None) -> None:
        """Read the files; raises UsageError when one cannot be used."""
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again; on UsageError the old context stays."""
        self.context = self._load()

    def expiring(self) -> list[str]:
        """Return a line for each certificate, of clients' authorities too, that has expired or will within 14 days."""
        from tunnel.pki.inspection import soon_ending  # and cryptography with it, which only TLS needs

        lines = soon_ending(self._cert, "tls_cert")
        return lines if self._client_ca is None else [*lines, *soon_ending(self._client_ca, "tls_client_ca")]

    def _load(self) -> ssl.SSLContext:
        # Who could write the key, or say which authority is trusted, could come in.
        for setting, path, guard in (
            ("tls_cert", self._cert, STRICT if self._key is None else ANY),
            ("tls_key", self._key, STRICT),
            ("tls_client_ca", self._client_ca, STRICT),
        ):
            if path is not None:
                _check_file(setting, path, guard)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # Alike in every Python: since 3.13 it would refuse authorities of clients that break RFC 5280 in form only, as
        # those of many companies do, and take an intermediate authority for one that stands on its own.
        context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])  # WebSocket over HTTP/2 is another protocol
        encrypted = False

        def no_password() -> str:
            # Without a function for it, OpenSSL would ask for the password on the terminal.
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
                raise _bad_file("tls_client_ca", self._client_ca, "there is no certificate in it") from exc
        return context


async def start_tls(context: ssl.SSLContext, sock: socket.socket) -> ServerTLSChannel:
    """Do the server's side of the TLS handshake on ``sock``, which is closed when this fails.

    There is no time limit: the caller sets one. Raises OSError (ssl.SSLError among them).
    """
    try:
        channel = ServerTLSChannel(sock, context)
        while not channel.shake_hands():
            if channel.is_blocked:
                await writable(channel.fileno())
            elif channel.pending:
                await asyncio.sleep(0)  # others have waited long enough
            else:
                await readable(channel.fileno())
        return channel
    except ssl.SSLError:
        await close_gently(sock)  # OpenSSL has sent an alert, which tells the client why
        raise
    except BaseException:
        sock.close()
        raise


def _pair_problem(exc: OSError, *, encrypted: bool) -> str:
    if encrypted:
        return "the key is encrypted, which a service cannot use: openssl pkey -in FILE -out FILE"
    if isinstance(exc, ssl.SSLError):
        if exc.reason == "KEY_VALUES_MISMATCH":
            return f"the key ({spelled('tls_key')}) belongs to another certificate"
        return "it is no PEM certificate, or there is no key to it, or one is damaged"
    return exc.strerror or str(exc)


def _check_file(setting: str, path: str, guard: str) -> None:
    """Say which file it is, as ssl's own errors do not; and let nothing through that ssl would wait for."""
    try:
        check_regular(path, guard=guard)
    except OSError as exc:
        raise _bad_file(setting, path, exc.strerror or str(exc)) from exc


def _bad_file(setting: str, path: str, reason: str) -> UsageError:
    return UsageError(code="file", setting=setting, path=path, reason=reason)
