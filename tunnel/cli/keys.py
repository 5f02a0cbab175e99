"""``wstunnel-py keys``: bearer tokens and host keys of SSH servers."""

from __future__ import annotations

import click

from tunnel.cli.paths import HomePath
from tunnel.client.trace import say

_FILE = HomePath(dir_okay=False)


@click.group(short_help="Make tokens and host keys, and show what a file holds.")
def keys() -> None:
    """Make tokens and host keys, and show what a file holds, but for its secrets.

    New files are private (mode 0600), and nothing is overwritten without --force."""


@keys.command(short_help="Make a token for --token-file.")
@click.argument("file", type=_FILE, required=False)
@click.option("--append", metavar="LIST", type=_FILE, help="Add the token to this file of serve too, after the others.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
def token(file: str | None, append: str | None, force: bool) -> None:
    """Make a bearer token of 256 bits and write it to FILE; without FILE print it.

    Both ends take the file by --token-file. For a new token that is to follow an old one, give it to the bridge first:

    \b
        wstunnel-py keys token new.token --append bridge.tokens   # then SIGHUP for the bridge
    """
    from tunnel.pki.tokens import make_token

    made = make_token(file, append_to=append, force=force)
    if file is None:
        click.echo(made)
    else:
        click.echo(f"{file}  a new token, for --token-file of connect and serve")
    if append is not None:
        # Not to standard output, which may be the token's.
        say(f"{append} has the token too; the bridge reads it on SIGHUP")


@keys.command(short_help="Make the host key of an SSH server.")
@click.argument("file", type=_FILE)
@click.option("--comment", metavar="TEXT", help="What the key says of itself. Default: wstunnel-py host key.")
@click.option("--force", is_flag=True, help="Replace FILE and FILE.pub if they are there.")
def host(file: str, comment: str | None, force: bool) -> None:
    """Make a host key (ed25519, OpenSSH's format) in FILE and FILE.pub, and show its fingerprint.

    For an image whose sandboxes share one key, or any sshd: HostKey FILE."""
    from tunnel.ssh.host_key import COMMENT, make_host_key

    click.echo(make_host_key(file, comment=COMMENT if comment is None else comment, force=force))


@keys.command(short_help="Show fingerprints, or how many tokens there are.")
@click.argument("files", metavar="FILE…", type=_FILE, nargs=-1, required=True)
def show(files: tuple[str, ...]) -> None:
    """Show the fingerprints of SSH keys as ssh-keygen -l does, and how many tokens are in files of tokens.

    Secrets are not shown. Warns of files that others can read."""
    from tunnel.pki.storage import read
    from tunnel.pki.tokens import describe_tokens
    from tunnel.ssh.host_key import describe_key, is_ssh_key

    for file in files:
        for line in describe_key(file) if is_ssh_key(read(file)) else describe_tokens(file, "keys show"):
            click.echo(line)
