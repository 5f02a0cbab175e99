"""``wstunnel-py keys``: makes and shows bearer tokens and host keys."""

from __future__ import annotations

import click

from tunnel.cli.paths import HomePath
from tunnel.client.trace import say

_FILE = HomePath(dir_okay=False)
_SSH_KEYS = (b"-----BEGIN ", b"ssh-", b"ecdsa-sha2-", b"sk-ssh-", b"sk-ecdsa-")  # how a private or public one begins


@click.group(short_help="Make and show tokens and host keys.")
def keys() -> None:
    """Make tokens and host keys, and show what is in their files, without the secrets.

    New files are private (mode 0600). Existing files are overwritten only with --force."""


@keys.command(short_help="Make a token for --token-file.")
@click.argument("file", type=_FILE, required=False)
@click.option("--append", metavar="LIST", type=_FILE, help="Also append the token to this token file of serve.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def token(file: str | None, append: str | None, force: bool) -> None:
    """Make a bearer token of 256 bits, and write it to FILE, or print it if no FILE is given.

    Give the file to both ends with --token-file. To replace a token, first add the new one to the bridge's file:

    \b
        wstunnel-py keys token new.token --append bridge.tokens   # then send SIGHUP to the bridge
    """
    from tunnel.pki.tokens import make_token

    made = make_token(file, append_to=append, force=force)
    if file is None:
        click.echo(made)
    else:
        click.echo(f"{file}  a new token; give the file to both ends: --token-file (terminals: serve --pty-token-file)")
    if append is not None:
        # Not on standard output, which may hold the token.
        say(f"the token was also appended to {append}; the bridge reads it on SIGHUP")


@keys.command(short_help="Make the host key of an SSH server.")
@click.argument("file", type=_FILE)
@click.option("--comment", metavar="TEXT", help="Comment of the key. Default: wstunnel-py host key.")
@click.option("--force", is_flag=True, help="Replace FILE and FILE.pub if they exist.")
def host(file: str, comment: str | None, force: bool) -> None:
    """Make an SSH host key (Ed25519, in OpenSSH's format) in FILE and FILE.pub, and show its fingerprint.

    Any sshd can use it (HostKey FILE), for example in an image whose sandboxes share one key."""
    from tunnel.ssh.host_key import COMMENT, make_host_key

    click.echo(make_host_key(file, comment=COMMENT if comment is None else comment, force=force))


@keys.command(short_help="Show fingerprints of keys, and count tokens.")
@click.argument("files", metavar="FILE…", type=_FILE, nargs=-1, required=True)
def show(files: tuple[str, ...]) -> None:
    """Show the fingerprints of SSH keys, as ssh-keygen -l does, and the number of tokens in token files.

    Secrets are not shown. A warning names files that others can read."""
    from tunnel.pki.storage import read
    from tunnel.pki.tokens import describe_tokens

    for file in files:
        if read(file).startswith(_SSH_KEYS):
            from tunnel.ssh.host_key import describe_key  # imports asyncssh, which token files do not need

            lines = describe_key(file)
        else:
            lines = describe_tokens(file)
        for line in lines:
            click.echo(line)
