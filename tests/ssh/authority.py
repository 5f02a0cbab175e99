"""A CA that signs certificates with ssh-keygen, and the keys that it signs."""

from __future__ import annotations

from pathlib import Path

from tests.bed.processes import Bed
from tests.bed.tunnels import Route


def make_key(bed: Bed, name: str) -> Path:
    """Make a key pair, both keys in the same folder."""
    path = bed.folder / name
    bed.check("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))
    return path


def public(key: Path) -> str:
    """The public key as a line."""
    return Path(f"{key}.pub").read_text().strip()


def sign(bed: Bed, authority: Path, key: Path, *options: str, principals: str = "me") -> Path:
    """Certify ``key``, with further options of ssh-keygen (``-O force-command=…``); return the certificate.

    ``me`` among the ``principals`` is the user who runs the tests.
    """
    name = bed.check("id", "-un").text.strip()
    names = ",".join(name if each == "me" else each for each in principals.split(","))
    bed.check("ssh-keygen", "-q", "-s", str(authority), "-I", "member", "-n", names, *options, f"{key}.pub")
    return Path(f"{key}-cert.pub")


def with_keys(route: Route, *keys: Path, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the beginning of ssh's command line for ``route``, with these keys in this order."""
    lines = (line.strip() for line in route.config.read_text().splitlines()[1:])
    kept = [line.replace(" ", "=", 1) for line in lines if not line.startswith("IdentityFile")]
    identities = [word for key in keys for word in ("-i", str(key))]
    return ("ssh", "-F", "/dev/null", *identities, *(word for line in kept for word in ("-o", line)), *options, "box")
