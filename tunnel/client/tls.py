"""TLS of a dial: whom the client trusts, what it shows of itself, and what each failure is to a user."""

from __future__ import annotations

import _thread
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
    """Return how certificates are checked and shown. Raises UsageError for a file that cannot be used."""
    # The default context honours SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR.
    try:
        if settings.ca_file:
            _check_regular(settings.ca_file)
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
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


def _check_regular(path: str) -> None:
    """Raise OSError unless ``path`` is a file that can be read without waiting."""
    from tunnel.net.files import check_regular  # late, as most users name no file

    check_regular(path)


def set_verify_flags(context: ssl.SSLContext) -> None:
    """Let certificates be checked alike by every Python, and as curl and OpenSSL's own programs check them.

    Since 3.13 the default context has two more flags. VERIFY_X509_STRICT refuses authorities that break RFC 5280 in
    form, such as those of companies whose basicConstraints are not critical. A user cannot repair them, and they are no
    less to be trusted, so it is switched off. VERIFY_X509_PARTIAL_CHAIN trusts an intermediate authority in ``ca_file``
    without its root. That is what whoever put it there wants, so it is switched on, in older Pythons too.
    """
    context.verify_flags = (context.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN


def _show_certificate(context: ssl.SSLContext, certificate: str, named_key: str | None) -> None:
    """Let ``context`` show the client certificate. Raises UsageError, which names the file that is wrong."""
    from tunnel.client.client_key import CERTIFICATE, KEY, holds, key_beside, key_path  # late, as few users show one

    setting, path, reason = "client_cert", certificate, ""
    try:
        key = key_path(certificate, named_key)
        if not holds(certificate, CERTIFICATE):
            reason = "there is no certificate in PEM form in it"
        elif key is None:
            reason = f"it has no key in it, and there is no {key_beside(certificate)}; see {spelled('client_key')}"
        else:
            setting, path = "client_key", key
            if holds(key, KEY):
                setting, path = "client_cert", certificate
                context.load_cert_chain(certificate, key, password=_no_password)
                return
            reason = "there is no key in PEM form in it"
    except ssl.SSLError as exc:
        if exc.reason != "KEY_VALUES_MISMATCH":
            raise _unusable(setting, path, exc) from exc
        reason = f"the key in {key} is not the one of this certificate"
    except OSError as exc:
        raise _unusable(setting, path, exc) from exc
    raise UsageError(code="file", setting=setting, path=path, reason=reason)


def _no_password() -> str:
    raise OSError("its key is encrypted, and nobody is there to ask for the password")


def _unusable(setting: str, path: str | None, exc: OSError) -> UsageError:
    reason = getattr(exc, "reason", None) or exc.strerror or str(exc) or "no certificate in it"
    return UsageError(code="file", setting=setting, path=path, reason=str(reason).replace("_", " ").lower())


def start_tls(
    sock: socket.socket, context: ssl.SSLContext, address: Address, limit: Limit, trace: Trace, alarm: Alarm
) -> ssl.SSLSocket:
    hop = f"TLS with {address.host}"
    # As bytes for the reason that `tcp.resolve_name` gives.
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
    expires = (tls.getpeercert() or {}).get("notAfter", "")  # nothing if it was not looked at
    remark = "" if checked else f", whose certificate was not checked ({spelled('insecure')})"
    trace.step(
        "tls", f"{tls.version()} with {address.host}{remark}", expires=str(expires), code="" if checked else "insecure"
    )
    return tls


# Codes of OpenSSL's verification (x509_vfy.h) that are no matter of trust.
_WRONG_NAME = (62, 63, 64)  # of a host, of a mail address, of an IP address
_WRONG_TIME = (9, 10)  # not valid yet, not valid any more


def untrusted(exc: ssl.SSLCertVerificationError, host: str) -> DialError:
    """Return the error for a certificate of ``host`` that was looked at and not accepted."""
    number = exc.verify_code
    code = "tls-wrong-name" if number in _WRONG_NAME else "tls-expired" if number in _WRONG_TIME else "tls-untrusted"
    return DialError(code, host=host, reason=(exc.verify_message or exc.reason).removesuffix("."))


class Alarm:
    """Shuts a TLS connection down when the time is over, unless it is cancelled before.

    OpenSSL looks at no clock: it goes on by itself as long as messages come that it may ignore.
    """

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._cancelled = _thread.allocate_lock()
        self._cancelled.acquire()
        self._is_over = self._went_off = False

    def set(self, sock: socket.socket, seconds: float) -> None:
        """Go off in ``seconds``."""
        _thread.start_new_thread(self._wait, (sock, seconds))

    def cancel(self) -> bool:
        """Leave the connection alone from now on; return whether it was too late for that."""
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
                # Not that of TLS, which two threads must not use.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass  # it is broken already


# What a server tells by an alert (RFC 8446 section 6.2) of the certificate that we showed, or did not. In TLS 1.3 that
# comes when the handshake is done for us already.
_CLIENT_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it wants a client certificate, or another one",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client certificate is not for clients",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the client certificate gives no access",
}
_WANT_ONE = ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_BAD_CERTIFICATE")


def tls_error(exc: OSError, address: Address) -> DialError | None:
    """Return what an error of a TLS connection stands for, None if it is the network's and not OpenSSL's."""
    if not isinstance(exc, ssl.SSLError) or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if exc.reason in _CLIENT_ALERTS:
        code = "tls-client-cert" if exc.reason in _WANT_ONE else "tls-refused"
        return DialError(code, host=address.host, reason=_CLIENT_ALERTS[exc.reason])
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        reason = "the server does not speak TLS there; a URL without TLS begins with ws://"
    if exc.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # also TLS 1.2's answer to a certificate that is missing
        reason = "the server refused the handshake, maybe for want of a client certificate"
        return DialError("tls-handshake", host=address.host, reason=reason)
    return DialError("tls", host=address.host, reason=reason)
