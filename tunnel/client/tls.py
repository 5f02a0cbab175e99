"""TLS of a dial: the CAs that the client trusts, the certificate that it shows, and the errors of a handshake."""

from __future__ import annotations

import _thread
import functools
import os
import socket
import ssl

from tunnel.errors import DialError, UsageError, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.address import Address
    from tunnel.client.settings import TLSSettings
    from tunnel.client.tcp import Limit
    from tunnel.client.trace import Trace


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return the context for the TLS settings. Raises UsageError for a file that cannot be used."""
    # The default context honours SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR.
    try:
        if settings.ca_file:
            _check_regular(settings.ca_file)
        context = _default_context(settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        key_log = os.environ.get("SSLKEYLOGFILE")
        if key_log and exc.filename == key_log:
            raise _unusable("SSLKEYLOGFILE", key_log, exc) from exc
        raise _unusable("ca_file", settings.ca_file, exc) from exc
    if settings.client_cert:
        try:
            _check_regular(settings.client_cert)
        except OSError as exc:
            raise _unusable("client_cert", settings.client_cert, exc) from exc
        try:
            if settings.client_key:
                _check_regular(settings.client_key)
        except OSError as exc:
            raise _unusable("client_key", settings.client_key, exc) from exc
        _show_certificate(context, settings.client_cert, settings.client_key)
    set_verify_flags(context)
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _default_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        in_store = getattr(ssl, "enum_certificates", None)  # only on Windows
        if ca_file or in_store is None:
            raise
    # Windows' store has a certificate that OpenSSL cannot parse. Only newer Pythons leave such a one out:
    # https://github.com/python/cpython/issues/79846
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_default_verify_paths()
    for store in ("CA", "ROOT"):
        for certificate, encoding, uses in in_store(store):
            if encoding == "x509_asn" and (uses is True or ssl.Purpose.SERVER_AUTH.oid in uses):
                try:
                    context.load_verify_locations(cadata=certificate)
                except ssl.SSLError:
                    pass
    return context


def _check_regular(path: str) -> None:
    """Raise OSError unless ``path`` is a regular file, which can be read without waiting."""
    from tunnel.net.files import check_regular  # late, as most users name no file

    check_regular(path)


def set_verify_flags(context: ssl.SSLContext) -> None:
    """Make every Python check certificates in the same way, like curl and OpenSSL's own programs.

    Since 3.13 the default context has two more flags. VERIFY_X509_STRICT refuses CAs that break RFC 5280 in form, such
    as private CAs whose basicConstraints are not critical. Users cannot repair these, and the defect does not make them
    less trustworthy, so the flag is cleared. VERIFY_X509_PARTIAL_CHAIN trusts an intermediate CA in ``ca_file`` without
    its root. That is what its presence there means, so the flag is set, also in older Pythons.
    """
    context.verify_flags = (context.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN


def _show_certificate(context: ssl.SSLContext, certificate: str, named_key: str | None) -> None:
    """Load the client certificate into ``context``. Raises UsageError, which names the file that is wrong."""
    from tunnel.client.client_key import CERTIFICATE, KEY, holds, key_beside, key_path  # late, as few users show one

    setting, path, reason = "client_cert", certificate, ""
    try:
        key = key_path(certificate, named_key)
        if not holds(certificate, CERTIFICATE):
            reason = "it contains no PEM certificate"
        elif key is None:
            reason = f"it contains no key, and there is no {key_beside(certificate)}; see {spelled('client_key')}"
        else:
            setting, path = "client_key", key
            if holds(key, KEY):
                setting, path = "client_cert", certificate
                context.load_cert_chain(certificate, key, password=functools.partial(_no_password, key))
                return
            reason = "it contains no PEM key"
    except ssl.SSLError as exc:
        if exc.reason != "KEY_VALUES_MISMATCH":
            raise _unusable(setting, path, exc) from exc
        reason = f"the key in {key} does not belong to this certificate"
    except OSError as exc:
        raise _unusable(setting, path, exc) from exc
    raise UsageError(code="file", setting=setting, path=path, reason=reason)


_NO_CERTIFICATE = "no certificate or crl found"  # OpenSSL's text


def _no_password(key: str) -> str:
    raise OSError(f"the key in {key} is encrypted; decrypt it with: openssl pkey -in {key} -out FILE")


def _unusable(setting: str, path: str | None, exc: OSError) -> UsageError:
    reason = str(getattr(exc, "reason", None) or exc.strerror or str(exc) or _NO_CERTIFICATE)
    if isinstance(exc, ssl.SSLError):
        reason = reason.replace("_", " ").lower()
    if reason == _NO_CERTIFICATE:
        reason = "it contains no PEM certificate"
    return UsageError(code="file", setting=setting, path=path, reason=reason)


def start_tls(
    sock: socket.socket, context: ssl.SSLContext, address: Address, limit: Limit, trace: Trace, alarm: Alarm
) -> ssl.SSLSocket:
    hop = f"TLS with {address.host}"
    # As bytes, for the reason given in `tcp.resolve_name`.
    name = address.certificate_name.encode("ascii")
    try:
        tls = context.wrap_socket(limit.apply(sock), server_hostname=name, do_handshake_on_connect=False)
        alarm.set(tls, limit.left())
        try:
            tls.do_handshake()
        except BaseException:
            alarm.cancel()
            tls.close()
            raise
    except ssl.SSLCertVerificationError as exc:
        raise untrusted(exc, address.host) from exc
    except OSError as exc:
        if isinstance(exc, TimeoutError) or limit.over:
            raise DialError("answer-timeout", hop=hop, seconds=limit.seconds) from exc
        raise tls_error(exc, address) or DialError("hung-up", hop=hop) from exc
    checked = context.verify_mode != ssl.CERT_NONE
    expires = (tls.getpeercert() or {}).get("notAfter", "")  # "" if the certificate was not checked
    remark = "" if checked else f", whose certificate was not checked ({spelled('insecure')})"
    trace.step(
        "tls", f"{tls.version()} with {address.host}{remark}", expires=str(expires), code="" if checked else "insecure"
    )
    return tls


# Codes of OpenSSL's verification (x509_vfy.h) that are not about trust.
_WRONG_NAME = (62, 63, 64)  # host name, mail address, IP address
_WRONG_TIME = (9, 10)  # not yet valid, expired


def untrusted(exc: ssl.SSLCertVerificationError, host: str) -> DialError:
    """Return the error for a certificate of ``host`` that was checked and not accepted."""
    number = exc.verify_code
    code = "tls-wrong-name" if number in _WRONG_NAME else "tls-expired" if number in _WRONG_TIME else "tls-untrusted"
    return DialError(code, host=host, reason=(exc.verify_message or exc.reason).removesuffix("."))


class Alarm:
    """Shuts a TLS connection down when the time is over, unless it is cancelled before.

    OpenSSL has no time limit: it continues as long as the server sends messages that it may ignore.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._cancelled = _thread.allocate_lock()
        self._cancelled.acquire()
        self._is_over = self._went_off = False

    def set(self, sock: socket.socket, seconds: float) -> None:
        """Shut ``sock`` down in ``seconds``."""
        _thread.start_new_thread(self._wait, (sock, seconds))

    def cancel(self) -> bool:
        """Cancel the alarm; return whether it was too late for that."""
        with self._lock:
            if not self._is_over:
                self._is_over = True
                self._cancelled.release()
            return self._went_off

    def _wait(self, sock: socket.socket, seconds: float) -> None:
        if self._cancelled.acquire(timeout=seconds):
            return
        with self._lock:
            if self._is_over:
                return
            self._is_over = self._went_off = True
            try:
                # Not the method of the TLS socket, which two threads must not use.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass  # it is broken already


# Alerts of a server about our certificate, or the lack of one (RFC 8446 section 6.2). In TLS 1.3 they arrive when the
# handshake is complete for the client.
_CLIENT_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it requires a client certificate, or a different one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client certificate is not for clients",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the client certificate does not grant access",
}
_WANT_ONE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE")


def tls_error(exc: OSError, address: Address, plain: str = "ws") -> DialError | None:
    """Return the error for an OpenSSL error of a TLS connection; None for an error of the network.

    ``plain`` is the scheme of URLs without TLS.
    """
    if not isinstance(exc, ssl.SSLError) or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if exc.reason in _CLIENT_ALERTS:
        code = "tls-client-cert" if exc.reason in _WANT_ONE else "tls-refused"
        return DialError(code, host=address.host, reason=_CLIENT_ALERTS[exc.reason])
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        reason = f"the server does not use TLS on that port; a URL without TLS begins with {plain}://"
    if exc.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # also TLS 1.2's answer to a certificate that is missing
        reason = "the server refused the handshake, perhaps because it requires a client certificate"
        return DialError("tls-handshake", host=address.host, reason=reason)
    return DialError("tls", host=address.host, reason=reason)
