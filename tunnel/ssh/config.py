"""The ssh_config that leads hosts through tunnels: which hosts, and the lines for each.

It writes only what OpenSSH, editors (open-remote-ssh) and Python libraries all read alike, and refuses the rest.
`config_file` puts the text in place.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunnel.client.layers import Layers, configured, read_environment
from tunnel.client.options import FLAG, OPTIONS, PATH, TEXT, Option
from tunnel.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Config, Values

PROGRAM = "wstunnel-py"
KNOWN_HOSTS = "~/.ssh/known_hosts.wstunnel-py"
ALIVE_INTERVAL = 60  # seconds
FEWEST_ALIVE = 3  # ssh's own default for ServerAliveCountMax

# What goes on to `connect`. Headers are left out: they hold secrets, and other users can read command lines.
PASSED_ON = tuple(option for option in OPTIONS if option.name not in ("header", "stdin-thread"))

OWN_OPTIONS = (
    Option("user", TEXT, "User to log in as, on all these hosts.", metavar="USER"),
    Option("identity-file", PATH, "Private key to log in with; no other is tried.", metavar="FILE"),
    Option("host-key-alias", TEXT, "Name under which the host key is kept, for sandboxes that all have the key of "
           "their image. Applies to patterns and to each NAME given.", metavar="ALIAS"),
    Option("known-hosts-file", PATH, f"Where host keys are kept. Default: {KNOWN_HOSTS}.", metavar="FILE"),
    Option("executable", PATH, "Program for ssh to start. Default: this one.", metavar="FILE"),
    Option("ssh-config", PATH, "ssh's config file, which gets the Include. The included file goes into the same "
           "folder. Default: ~/.ssh/config.", metavar="FILE"),
    Option("write", FLAG, "Write the lines to a file of their own and an Include to the top of ssh's config file."),
    Option("diff", FLAG, "Show what --write or --remove would change. The exit code is 1 if anything would."),
    Option("remove", FLAG, "Undo what --write did."),
)  # fmt: skip
ACTIONS = ("write", "diff", "remove")
CONFIG_SSH_OPTIONS = (*OWN_OPTIONS, *PASSED_ON)

_NAME_MARKS = frozenset("._-")
_USER_MARKS = frozenset("._-@+")
_PLAIN_MARKS = frozenset("_@+=:,./-%")  # in words that no shell and no parser needs quotes for


@dataclass(frozen=True)
class Generated:
    """An ssh_config: its ``text``, and what of the config file at ``source`` was left out of it, with the reasons."""

    text: str
    source: str
    left_out: list[str]


def generate(
    names: Sequence[str], given: Values, started_as: str, environ: Mapping[str, str] = os.environ
) -> Generated:
    """Return the ssh_config for the hosts called ``names``, or else for all that there are.

    ``given`` are the options of `CONFIG_SSH_OPTIONS`, ``started_as`` is ``sys.argv[0]``. Raises UsageError.
    """
    environment = read_environment(environ, OPTIONS)
    config = configured(given, environment)
    # Another config file is named for good: the hosts are from it, and an editor may not have the variable.
    other = given.get("config", environment.get("config"))
    hosts, left_out = choose_hosts(config, names, any_pattern="url" in given)
    program = given_program(str(given["executable"])) if "executable" in given else own_program(started_as)
    command = proxy_command(program, given if other is None else {**given, "config": other})
    blocks = []
    for host in hosts:
        layers = Layers(config, given, host.table, environment, OPTIONS)
        lines = [*_login_lines(host, given), f"ProxyCommand {command}", *_alive_lines(layers)]
        blocks.append(f"Host {host.name}\n" + "".join(f"    {line}\n" for line in lines))
    return Generated("\n".join(blocks), config.path, left_out)


def command_line(names: Sequence[str], given: Values) -> str:
    """Return the command that writes the same ssh_config again."""
    settings = {name: value for name, value in given.items() if name not in ACTIONS}
    return shlex.join([PROGRAM, "config-ssh", "--write", *option_words(settings, CONFIG_SSH_OPTIONS), *names])


@dataclass(frozen=True)
class Host:
    """One block: ``name`` as it follows ``Host``, its table of the config file, and whether the user asked for it."""

    name: str
    table: Values
    named: bool

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name


def choose_hosts(config: Config, names: Sequence[str], *, any_pattern: bool = False) -> tuple[list[Host], list[str]]:
    """Return the hosts to write: those called ``names``, or else all of the config file; and what was left out, why.

    Exact names come first, then longer patterns, as ssh takes the first value that it finds. A pattern among the
    ``names`` must be one that the client strips, unless ``any_pattern``. Raises UsageError.
    """
    left_out: list[str] = []
    if names:
        hosts = [_named_host(config, name, any_pattern) for name in dict.fromkeys(names)]
    else:
        hosts = []
        for key, table in config.hosts.items():
            name = config.spellings.get(key, key)
            reason = _reason_to_leave_out(name, table)
            if reason:
                left_out.append(f"{name} ({reason})")
            else:
                hosts.append(Host(name, table, named=False))
    hosts.sort(key=lambda host: -len(host.name) if host.is_pattern else -math.inf)
    return hosts, left_out


def _named_host(config: Config, name: str, any_pattern: bool) -> Host:
    if not _is_name(name):
        raise UsageError(
            f"{name!r} is not a host name or pattern: use letters and digits, with . _ - and one * between them"
        )
    host = Host(name, config.hosts.get(name.lower(), {}), named=True)
    if host.is_pattern and name.lower() not in config.hosts and not any_pattern:
        raise UsageError(f'{config.path} has no pattern {name}; a table [hosts."{name}"] makes it one')
    if not host.is_pattern and not host.table and (found := config.lookup(name)) is not None:
        return Host(name, found[1], named=True)
    return host


def _reason_to_leave_out(name: str, table: Values) -> str | None:
    """Tell why a table of the config file is not about a host for ssh, or None."""
    if not _is_name(name):
        return "not a name for ssh"
    if not name.replace("*", ""):
        return "every host"
    if table and all(key.startswith("pty-") for key in table):
        return "terminals only"
    if "." in name and "*" not in name and "url" not in table:
        return "no url"  # such a table gives credentials to literal URLs, and the name may be that of a real host
    return None


def _is_name(name: str) -> bool:
    """Whether ssh takes ``name`` in a Host line for what it is in the config file: a name, or a pattern with one *."""
    return (
        bool(name)
        and all(c.isalnum() or c in _NAME_MARKS for c in name.replace("*", "", 1))
        and not name.startswith("-")
    )


def own_program(started_as: str = "", platform: str = sys.platform) -> list[str]:
    """Return the words that start this program from anywhere: its installed command, else the interpreter's.

    ``started_as`` is ``sys.argv[0]``. Links stay as they are: they outlive updates of what they lead to.
    """
    suffix = ".exe" if platform == "win32" else ""
    candidates = [os.path.join(sysconfig.get_path("scripts"), PROGRAM + suffix)]
    if os.path.basename(started_as).removesuffix(".exe") == PROGRAM:
        candidates.insert(0, os.path.abspath(started_as.removesuffix(".exe") + suffix))
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return [path]
    return [sys.executable, "-m", "tunnel"]


def given_program(path: str) -> list[str]:
    """Return the words that start the program at ``path``. Raises UsageError if there is none."""
    path = os.path.abspath(path)
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        reason = "there is no such program"
        raise UsageError(code="file", setting="executable", path=path, reason=reason)
    return [path]


def option_words(given: Values, options: Iterable[Option]) -> list[str]:
    """Return ``given`` as words of a command line, in the order of the table; files by their absolute paths."""
    words = []
    for option in options:
        value = given.get(option.name)
        if value is None:
            continue
        if option.kind == FLAG:
            words.append(f"--{option.flag}" if value else f"--no-{option.flag}")
            continue
        if option.kind == PATH:
            value = os.path.abspath(str(value))
        words += [f"--{option.flag}", f"{value:.15g}" if isinstance(value, float) else str(value)]
    return words


def quoted(text: str, *, percent: bool = True, platform: str = sys.platform) -> str:
    """Return ``text`` as one word of ssh_config and of the shell that runs a ProxyCommand, in quotes only if need be.

    ``percent``: the place is one where ssh expands tokens. Raises UsageError for what no quotes make safe in all of
    OpenSSH, a shell and the other parsers. On Windows backslashes become slashes, which it takes as well.
    """
    if platform == "win32":
        text = text.replace("\\", "/")
    if not text.isprintable() or not text or any(c in text for c in '"$`\\'):
        raise UsageError(f'{text!r} cannot be written into ssh_config: " $ ` \\ and control characters are not allowed')
    word = text.replace("%", "%%") if percent else text
    plain = all(c.isalnum() or c in _PLAIN_MARKS for c in text) and not text.startswith("=")
    return word if plain else f'"{word}"'


def proxy_command(program: Sequence[str], given: Values) -> str:
    """Return the ProxyCommand, with those of the options ``given`` that are for `connect`. Raises UsageError."""
    if "@" in str(given.get("proxy", "")):
        raise UsageError(
            "a password must not stand in a command line, which others can read; use config.toml", setting="proxy"
        )
    words = [*program, "connect", *option_words(given, PASSED_ON), "--"]
    return " ".join([*map(quoted, words), "%h"])


def _login_lines(host: Host, given: Values) -> list[str]:
    """Return what is about the login and the host's key."""
    lines = []
    # Pinned, so that an older block for the same host, further down, cannot change what %h is.
    if not host.is_pattern:
        lines.append(f"HostName {host.name}")
    if "user" in given:
        lines.append(f"User {_checked('user', given, _USER_MARKS)}")
    if "identity-file" in given:
        lines += [f"IdentityFile {quoted(os.path.abspath(str(given['identity-file'])))}", "IdentitiesOnly yes"]
    # HostKeyAlias takes no tokens. Without one ssh keeps a sandbox's key under the name as typed, ID.e2b.
    if "host-key-alias" in given and (host.is_pattern or host.named):
        lines.append(f"HostKeyAlias {_checked('host-key-alias', given, _NAME_MARKS)}")
    elif not host.is_pattern:
        lines.append(f"HostKeyAlias {host.name}")
    known = quoted(os.path.abspath(str(given["known-hosts-file"]))) if "known-hosts-file" in given else KNOWN_HOSTS
    return [*lines, f"UserKnownHostsFile {known}", "StrictHostKeyChecking accept-new"]


def _checked(name: str, given: Values, marks: frozenset[str]) -> str:
    value = str(given[name])
    if value.startswith("-") or not all(c.isalnum() or c in marks for c in value):
        shown = " ".join(sorted(marks))
        problem = f"{value!r} has other characters than letters, digits and {shown}"
        raise UsageError(problem, setting=name.replace("-", "_"))
    return value


def _alive_lines(layers: Layers) -> list[str]:
    """Return how long ssh is to wait for an answer: not less than the client tries to get a lost connection back."""
    count = FEWEST_ALIVE
    if not layers.flag("no-resume"):
        count = max(count, math.ceil(layers.number("reconnect-for") / ALIVE_INTERVAL))
    return [f"ServerAliveInterval {ALIVE_INTERVAL}", f"ServerAliveCountMax {count}"]
