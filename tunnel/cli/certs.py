"""``wstunnel-py certs``: your own certificate authority and its certificates, for mutual TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tunnel.cli.paths import HomePath
from tunnel.client.trace import say, warn
from tunnel.errors import USAGE, TunnelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.pki.authority import Authority, Issued

_DAYS = click.IntRange(1, 36_500)
_FILE = HomePath(dir_okay=False)
_FOLDER = HomePath(file_okay=False)
_UNFIT = 1  # exit code of `certs show`: a certificate cannot be used, or expires within --within


def _folder_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--ca",
        metavar="DIR",
        type=_FOLDER,
        required=True,
        envvar="WSTUNNEL_PY_CERTS_CA",
        show_envvar=True,
        help="Folder of the CA, made by certs ca.",
    )(command)


def _leaf_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--force", is_flag=True, help="Replace existing files."),
        click.option(
            "--out", metavar="STEM", type=_FILE, help="Write STEM.pem and STEM.key. Default: the (first) NAME."
        ),
        click.option(
            "--days", type=_DAYS, metavar="DAYS", default=365, show_default=True, help="How long it is valid."
        ),
    ):
        command = option(command)
    return _folder_option(command)


@click.group(short_help="Make, renew and show certificates.")
def certs() -> None:
    """Make your own certificate authority (CA) and certificates for mutual TLS, where both ends check each other.

    \b
        wstunnel-py certs ca pki
        wstunnel-py certs server box.example.com --ca pki
        wstunnel-py certs client alice --ca pki
        wstunnel-py serve --tls-cert box.example.com.pem --tls-key box.example.com.key --tls-client-ca pki/ca.pem
        wstunnel-py connect --ca-file pki/ca.pem --client-cert alice.pem --client-key alice.key wss://box.example.com:8081

    Keys are private (mode 0600). Existing files are overwritten only with --force."""


@certs.command(short_help="Make a certificate authority (CA).")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--name", metavar="TEXT", help="Name of the CA. Default: wstunnel-py CA and a number.")
@click.option("--days", type=_DAYS, metavar="DAYS", default=3650, show_default=True, help="How long it is valid.")
def ca(folder: str, name: str | None, days: int) -> None:
    """Make a certificate authority (CA) in DIR: its certificate ca.pem, which is public, and its secret key ca.key.

    Anyone who has ca.key can make certificates that your bridges accept. Keep it off machines that run bridges."""
    from tunnel.pki.authority import Authority
    from tunnel.pki.expiry import moment

    made = Authority.make(folder, name, days)
    click.echo(f"{made.certificate_file}  for --ca-file and --tls-client-ca, valid until {moment(made.end)}")
    click.echo(f"{made.key_file}  signs certificates; keep it secret")


@certs.command(short_help="Make a certificate for a bridge.")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@_leaf_options
def server(names: tuple[str, ...], ca: str, days: int, out: str | None, force: bool) -> None:
    """Make a certificate and a key for a bridge or an edge that clients reach by these NAMEs.

    NAME is a host name, a wildcard (*.example.com) or an IP address. The files are written to the current folder."""
    authority = _authority(ca)
    _write(authority.issue_for_server(names, days), out, names[0], force, "--tls-cert", "--tls-key")


@certs.command(short_help="Make a certificate for a client.")
@click.argument("name")
@_leaf_options
def client(name: str, ca: str, days: int, out: str | None, force: bool) -> None:
    """Make a certificate and a key for the client called NAME. The files are written to the current folder.

    A bridge admits every client certificate issued by its --tls-client-ca, until the certificate expires."""
    authority = _authority(ca)
    _write(authority.issue_for_client(name, days), out, name, force, "--client-cert", "--client-key")


@certs.command(short_help="Renew certificates.")
@click.argument("files", metavar="FILE…", type=_FILE, nargs=-1, required=True)
@_folder_option
@click.option("--days", type=_DAYS, metavar="DAYS", help="How long it is valid from now. Default: as long as before.")
@click.option("--within", type=_DAYS, metavar="DAYS", help="Skip certificates that are valid for longer than this.")
def renew(files: tuple[str, ...], ca: str, days: int | None, within: int | None) -> None:
    """Replace certificates with new ones that have the same names and key. A bridge reads them on SIGHUP.

    FILE is a certificate that the CA in DIR has issued, or the CA's own (ca.pem)."""
    from tunnel.pki.inspection import is_due

    authority = _authority(ca)
    for file in files:
        if within is not None and not is_due(file, within):
            click.echo(f"{file}  not due, left unchanged")
            continue
        issued = authority.renew_file(file, days)
        click.echo(f"{file}  renewed, {_until(issued)}")


@certs.command(short_help="Show certificates, and whether they are still valid.")
@click.argument("files", metavar="FILE…", type=_FILE, nargs=-1, required=True)
@click.option(
    "--within", type=_DAYS, metavar="DAYS", help="Also exit with 1 if a certificate expires within this time."
)
def show(files: tuple[str, ...], within: int | None) -> int:
    """Show what certificates are for, who issued them, until when they are valid, and whether their key matches.

    The key is in FILE, or in the file of the same name that ends with .key. Exit code 1: a certificate has expired, is
    not valid yet, or has the wrong key. Exit code 2: a file cannot be used. For cron: certs show --within 14 FILE…
    >/dev/null || mail …"""
    from tunnel.pki.inspection import reports

    code = 0
    for file in files:
        try:
            found = list(reports(file, within))
        except TunnelError as exc:
            say(str(exc))
            code = USAGE
            continue
        for report in found:
            for line in report.lines:
                click.echo(line)
            if not report.usable or (within is not None and report.ends_soon):
                code = max(code, _UNFIT)
    return code


def _authority(folder: str) -> Authority:
    from tunnel.pki.authority import Authority

    authority = Authority(folder)
    warn(authority.warnings)
    return authority


def _write(issued: Issued, out: str | None, name: str, force: bool, for_certificate: str, for_key: str) -> None:
    from tunnel.pki.authority import issue_files
    from tunnel.pki.names import file_name

    stem = out.removesuffix(".pem") if out else file_name(name)
    certificate, key = issue_files(issued, stem, force=force)
    click.echo(f"{certificate}  for {for_certificate}, {_until(issued)}")
    click.echo(f"{key}  for {for_key}, a secret")


def _until(issued: Issued) -> str:
    from tunnel.pki.expiry import moment

    return f"valid until {moment(issued.end)}" + (", when its CA expires" if issued.cut else "")
