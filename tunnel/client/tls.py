"""TLS of a dial: whom the client trusts, what it shows of itself, and what each failure is to a user."""

from __future__ import annotations

import ssl

from tunnel.errors import DialError, UsageError
from tunnel.net.files import check_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from tunnel.client.address import Address
    from tunnel.client.dial import Alarm, Limit
    from tunnel.client.settings import TLSSettings
    from tunnel.client.trace import Trace


def tls_context(settings: TLSSettings) -> ssl.SSLContext:
    """Return how certificates are checked and shown. Raises UsageError for a file that cannot be used."""
    # The default context honours SSLKEYLOGFILE, SSL_CERT_FILE and SSL_CERT_DIR.
    try:
        if settings.ca_file:
            check_regular(settings.ca_file)
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise _unusable("--ca-file", settings.ca_file, exc) from exc
    if settings.client_cert:
        try:
            check_regular(settings.client_cert)
        except OSError as exc:
            raise _unusable("--client-cert", settings.client_cert, exc) from exc
        try:
            if settings.client_key:
                check_regular(settings.client_key)
        except OSError as exc:
            raise _unusable("--client-key", settings.client_key, exc) from exc
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key, password=_no_password)
        except (OSError, ssl.SSLError) as exc:
            raise _unusable("--client-cert", settings.client_cert, exc) from exc
    set_verify_flags(context)
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def set_verify_flags(context: ssl.SSLContext) -> None:
    """Let certificates be checked alike by every Python, and as curl and OpenSSL's own programs check them.

    Since 3.13 the default context has two more flags. VERIFY_X509_STRICT refuses authorities that break RFC 5280 in
    form, such as those of companies whose basicConstraints are not critical: a user cannot repair them, and they are no
    less to be trusted, so it goes. VERIFY_X509_PARTIAL_CHAIN trusts an intermediate authority that stands in --ca-file
    without its root: that is what whoever put it there wants, so it comes, in older Pythons too.
    """
    context.verify_flags = (context.verify_flags & ~ssl.VERIFY_X509_STRICT) | ssl.VERIFY_X509_PARTIAL_CHAIN


def _no_password() -> str:
    raise OSError("its key is encrypted, and nobody is there to ask for the password")


def _unusable(option: str, path: str | None, exc: OSError) -> UsageError:
    reason = getattr(exc, "reason", None) or exc.strerror or str(exc) or "no certificate in it"
    return UsageError("", cause="file", option=option, path=path, reason=str(reason).replace("_", " ").lower())


def start_tls(
    sock: socket.socket, context: ssl.SSLContext, address: Address, limit: Limit, trace: Trace, alarm: Alarm
) -> ssl.SSLSocket:
    hop = f"TLS with {address.host}"
    # As bytes for the reason that `_resolve` gives.
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
        raise DialError("tls-untrusted", host=address.host, reason=exc.verify_message or exc.reason) from exc
    except OSError as exc:
        if isinstance(exc, TimeoutError) or limit.over:
            raise DialError("answer-timeout", hop=hop, seconds=limit.seconds) from exc
        raise tls_error(exc, address) or DialError("hung-up", hop=hop) from exc
    expires = (tls.getpeercert() or {}).get("notAfter", "")  # nothing with --insecure: it was not looked at
    trace.step("tls", f"{tls.version()} with {address.host}", expires=str(expires))
    return tls


# What a server tells by an alert (RFC 8446 section 6.2) of the certificate that we showed, or did not. In TLS 1.3 that
# comes when the handshake is done for us already.
_CLIENT_ALERTS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate (--client-cert)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it wants another client certificate, or one at all (--client-cert)",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the client certificate is not for clients",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the client certificate was revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept the client certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of the client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "the client certificate gives no access",
}


def tls_error(exc: OSError, address: Address) -> DialError | None:
    """Return what an error of a TLS connection stands for, None if it is the network's and not OpenSSL's."""
    if not isinstance(exc, ssl.SSLError) or isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if exc.reason in _CLIENT_ALERTS:
        return DialError("tls-refused", host=address.host, reason=_CLIENT_ALERTS[exc.reason])
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if exc.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        reason = "the server does not speak TLS there; a URL without TLS begins with ws://"
    if exc.reason == "SSLV3_ALERT_HANDSHAKE_FAILURE":  # also TLS 1.2's answer to a certificate that is missing
        reason = "the server refused the handshake; does it want a client certificate (--client-cert)?"
    return DialError("tls", host=address.host, reason=reason)
