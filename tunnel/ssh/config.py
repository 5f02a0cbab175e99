"""The ssh_config for hosts behind tunnels: which hosts, and the lines for each.

It uses only what OpenSSH, editors (open-remote-ssh) and Python libraries parse in the same way, and refuses the rest.
`config_file` writes the files.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunnel.client.address import shown_template
from tunnel.client.layers import Layers, configured, read_environment
from tunnel.client.options import FLAG, LOGIN_OPTIONS, OPTIONS, PATH, Option
from tunnel.errors import UsageError
from tunnel.ssh.ports import local_ports
from tunnel.ssh.quoting import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tunnel.client.config import Config, Values

Quote = Callable[[str], str]
PROGRAM = "wstunnel-py"
KNOWN_HOSTS = "~/.ssh/known_hosts.wstunnel-py"
ALIVE_INTERVAL = 60  # seconds
FEWEST_ALIVE = 3  # ssh's own default for ServerAliveCountMax

# The options that are passed to `connect`. Not headers: they contain secrets, and other users can read command lines.
PASSED_ON = tuple(option for option in OPTIONS if option.name not in ("header", "stdio-threads"))

OWN_OPTIONS = (
    *LOGIN_OPTIONS,
    Option("known-hosts-file", PATH, f"File in which ssh stores host keys. Default: {KNOWN_HOSTS}.", metavar="FILE"),
    Option("executable", PATH, "Program that ssh starts as its ProxyCommand. Default: this one.", metavar="FILE"),
)
CONFIG_SSH_ONLY = (
    Option("all", FLAG, "Besides each NAME, also write all hosts that are written without NAME."),
    Option("ports", FLAG, "For tools without ProxyCommand: give each host of the config file a local port, which "
           "forward --all serves."),
    Option("ssh-config", PATH, "ssh's config file, to which --write adds an Include. The included file is in the "
           "same folder. Default: ~/.ssh/config.", metavar="FILE"),
    Option("write", FLAG, "Write the lines to a separate file, and add an Include of it to the top of ssh's config "
           "file."),
    Option("diff", FLAG, "Show what --write or --remove would change. Exit code 1: something would change."),
    Option("remove", FLAG, "Undo --write."),
)  # fmt: skip
ACTIONS = ("write", "diff", "remove")
SSH_OPTIONS = (*OWN_OPTIONS, *PASSED_ON)
CONFIG_SSH_OPTIONS = (*OWN_OPTIONS, *CONFIG_SSH_ONLY, *PASSED_ON)
# The options of PASSED_ON that also apply without a ProxyCommand.
_WITH_PORTS = ("config", "no-resume", "reconnect-for", "quiet", "verbose")

_NAME_MARKS = frozenset("._-")
# A table of the config file with one of these options is for an ssh host.
_FOR_SSH = frozenset(("url", "forward-port", *(option.name for option in LOGIN_OPTIONS)))


@dataclass(frozen=True)
class Generated:
    """An ssh_config: its ``text``, and the tables of the config file at ``source`` that were left out, with reasons.

    ``made_by`` is the command that writes the same file again.
    """

    text: str
    source: str
    left_out: list[str]
    made_by: str


@dataclass(frozen=True)
class Source:
    """What the lines of all hosts are made from: options, environment, config file, and the program to start."""

    given: Values
    environment: Values
    config: Config
    program: list[str]


def read_source(given: Values, started_as: str, environ: Mapping[str, str] = os.environ) -> Source:
    """Read the config file; ``given`` are options of `CONFIG_SSH_OPTIONS`, ``started_as`` is ``sys.argv[0]``.

    Raises UsageError.
    """
    environment = read_environment(environ, OPTIONS)
    config = configured(given, environment)
    # A config file from the variable is named explicitly, as an editor may not have the variable.
    other = given.get("config", environment.get("config"))
    program = given_program(str(given["executable"])) if "executable" in given else own_program(started_as)
    return Source(given if other is None else {**given, "config": other}, environment, config, program)


def generate(
    names: Sequence[str], given: Values, started_as: str, environ: Mapping[str, str] = os.environ
) -> Generated:
    """Return the ssh_config for the hosts ``names``, or for all hosts without names.

    The other parameters are those of `read_source`. Raises UsageError.
    """
    source = read_source(given, started_as, environ)
    every = not names or given.get("all") is True
    hosts, left_out = choose_hosts(source.config, names, every=every, any_pattern="url" in given)
    ports = _ports_of(source, hosts) if given.get("ports") is True else {}
    blocks = []
    for host in hosts:
        lines = host_lines(host, source, ports.get(host.name.lower()))
        blocks.append(f"Host {host.name}\n" + "".join(f"    {line}\n" for line in lines))
    return Generated("\n".join(blocks), source.config.path, left_out, _command_line(names, source.given))


def host_lines(
    host: Host, source: Source, port: int | None = None, *, value: Quote = quoted, word: Quote = quoted
) -> list[str]:
    """Return the lines for one host: with a ProxyCommand or, if it is given, for its local ``port``.

    ``value`` and ``word`` quote a value and a word of the ProxyCommand. Raises UsageError.
    """
    layers = Layers(source.config, source.given, host.table, source.environment, OPTIONS)
    if port is None:
        # Set explicitly, so that another block for the same host, further down, cannot change %h.
        way = [] if host.is_pattern else [f"HostName {host.name}"]
        command = [f"ProxyCommand {proxy_command(source.program, source.given, word)}"]
    else:
        # The host key is checked here, too, although ssh connects to this machine.
        way = ["HostName 127.0.0.1", f"Port {port}", "NoHostAuthenticationForLocalhost no"]
        command = []
    return [*way, *_login_lines(host, source, value), *command, *_alive_lines(layers, host.name)]


def _ports_of(source: Source, hosts: Sequence[Host]) -> dict[str, int]:
    for option in PASSED_ON:
        if option.name in source.given and option.name not in _WITH_PORTS:
            problem = "it has no effect with --ports: put it into the config file, or pass it to forward --all"
            raise UsageError(problem, setting=option.setting)
    ports = local_ports(source.config, served_hosts(source.config))
    for host in hosts:
        if not host.is_pattern and host.name.lower() not in ports:
            raise UsageError(f"{host.name} has no port: forward --all serves only the hosts of {source.config.path}")
    if not ports:
        raise UsageError(f"no host in {source.config.path} can have a port: add a table [hosts.NAME] with its url")
    return ports


def served_hosts(config: Config) -> list[str]:
    """Return the names of the hosts that ``forward --all`` serves: those of the config file, without patterns."""
    return [host.name for host in choose_hosts(config, ())[0] if not host.is_pattern]


def _command_line(names: Sequence[str], given: Values) -> str:
    """Return the command that writes the same ssh_config again."""
    settings = {name: value for name, value in given.items() if name not in ACTIONS}
    return shlex.join([PROGRAM, "config-ssh", "--write", *option_words(settings, CONFIG_SSH_OPTIONS), *names])


@dataclass(frozen=True)
class Host:
    """One block: the ``name`` after ``Host``, its table in the config file, and whether the user named it."""

    name: str
    table: Values
    named: bool

    @property
    def is_pattern(self) -> bool:
        return "*" in self.name


def choose_hosts(
    config: Config, names: Sequence[str], *, every: bool = True, any_pattern: bool = False
) -> tuple[list[Host], list[str]]:
    """Return the hosts to write (``names``, and with ``every`` all others), and the names left out, with reasons.

    Exact names come first, then longer patterns, as ssh uses the first value that it finds. A pattern among the
    ``names`` must be one that the client strips, unless ``any_pattern``. Raises UsageError.
    """
    left_out: list[str] = []
    hosts = [named_host(config, name, any_pattern) for name in dict.fromkeys(names)]
    if every:
        named = {host.name.lower() for host in hosts}
        for key, table in config.hosts.items():
            if key in named:
                continue
            name = config.spellings.get(key, key)
            reason = _reason_to_leave_out(name, table)
            if reason:
                left_out.append(f"{name} ({reason})")
            else:
                hosts.append(Host(name, table, named=False))
    hosts.sort(key=lambda host: -len(host.name) if host.is_pattern else -math.inf)
    return hosts, left_out


def check_single(name: str) -> None:
    """Raise UsageError unless ``name`` is the name of a single host."""
    if "*" in name or not _is_name(name):
        step = _where_it_belongs(name) or "use letters and digits, with . _ - between them"
        raise UsageError(f"{_shown(name)!r} is not a host name: {step}")


def _shown(name: str) -> str:
    return shown_template(name) if "://" in name else name  # a URL may hold secrets


def _where_it_belongs(name: str) -> str:
    """Return what to do with a URL, user or port in place of a host name; "" for anything else."""
    if "://" in name:
        return "put the URL into --url, or into the config file"
    user, _, rest = name.rpartition("@")
    if user and _is_name(rest):
        return "put the user into --user, or into the config file"
    host, _, port = name.rpartition(":")
    return "leave out the port, which the tunnel's URL decides" if _is_name(host) and port.isdigit() else ""


def named_host(config: Config, name: str, any_pattern: bool = False) -> Host:
    """Return the host or pattern with that ``name``. Raises UsageError."""
    if not _is_name(name):
        step = _where_it_belongs(name) or "use letters and digits, with . _ - and one * between them"
        raise UsageError(f"{_shown(name)!r} is not a host name or pattern: {step}")
    host = Host(name, config.hosts.get(name.lower(), {}), named=True)
    if host.is_pattern and name.lower() not in config.hosts and not any_pattern:
        raise UsageError(f'{config.path} has no pattern {name}: add a table [hosts."{name}"]')
    if not host.is_pattern and not host.table and (found := config.lookup(name)) is not None:
        return Host(name, found[1], named=True)
    return host


def _reason_to_leave_out(name: str, table: Values) -> str | None:
    """Return why a table of the config file is not for an ssh host; None if it is."""
    if not _is_name(name):
        return "not a name for ssh"
    if not name.replace("*", ""):
        return "every host"
    if table and all(key.startswith("pty-") for key in table):
        return "terminals only"
    if "." in name and "*" not in name and not _FOR_SSH.intersection(table):
        return "no url"  # such a table may be for a literal URL, and its name may be that of another host
    return None


def _is_name(name: str) -> bool:
    """Whether ``name`` means the same in a Host line as in the config file: a name, or a pattern with one *."""
    return (
        bool(name)
        and all(c.isalnum() or c in _NAME_MARKS for c in name.replace("*", "", 1))
        and not name.startswith("-")
    )


def own_program(started_as: str = "", platform: str = sys.platform) -> list[str]:
    """Return the words that start this program from anywhere: the single file, the installed command, or a module.

    ``started_as`` is ``sys.argv[0]``. Links are not resolved, as their targets may change with an update.
    """
    archive = getattr(__spec__.loader, "archive", None)  # set by zipimport and the single file's loader
    if archive is not None:
        # With this interpreter, as the one on the PATH may be too old, and Windows needs one.
        return [sys.executable, os.path.abspath(archive)]
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
    """Return ``given`` as words of a command line, in the order of the table, with absolute paths."""
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


def proxy_command(program: Sequence[str], given: Values, word: Quote = quoted) -> str:
    """Return the ProxyCommand, with the options of ``given`` that are for `connect`. Raises UsageError."""
    return " ".join([*map(word, [*program, "connect", *passed_on_words(given), "--"]), "%h"])


def passed_on_words(given: Values, options: Iterable[Option] = PASSED_ON) -> list[str]:
    """Return the options of ``given`` for a command line, which other users can read. Raises UsageError."""
    if "@" in str(given.get("proxy", "")):
        raise UsageError(
            "a password must not be on a command line, which other users can read; use config.toml", setting="proxy"
        )
    return option_words(given, options)


def _login_lines(host: Host, source: Source, value: Quote) -> list[str]:
    """Return the lines about the login and the host key."""
    given, lines = source.given, []
    if user := _login_setting("user", host, source):
        lines.append(f"User {user}")
    if key := _login_setting("identity-file", host, source):
        lines += [f"IdentityFile {value(os.path.abspath(key))}", "IdentitiesOnly yes"]
    # HostKeyAlias expands no tokens. Without it ssh stores a sandbox's key under the typed name, ID.e2b.
    if alias := _host_key_alias(host, source) or ("" if host.is_pattern else host.name):
        lines.append(f"HostKeyAlias {alias}")
    known = value(os.path.abspath(str(given["known-hosts-file"]))) if "known-hosts-file" in given else KNOWN_HOSTS
    return [*lines, f"UserKnownHostsFile {known}", "StrictHostKeyChecking accept-new"]


def _login_setting(name: str, host: Host, source: Source) -> str:
    """Return a setting from the first matching table that has it, as ssh looks for it in every matching block."""
    layers = (source.given, *_tables_of(host, source.config), source.config.options)
    return next((str(layer[name]) for layer in layers if name in layer), "")


def _host_key_alias(host: Host, source: Source) -> str:
    name = "host-key-alias"
    if name in source.given and (host.is_pattern or host.named):
        return str(source.given[name])
    # Not from a pattern: a single host with its own table usually has its own key.
    is_single = not host.is_pattern and host.name.lower() in source.config.hosts
    tables = [host.table] if is_single else _tables_of(host, source.config)
    return next((str(table[name]) for table in tables if name in table), "")


def _tables_of(host: Host, config: Config) -> list[Values]:
    """Return the matching tables of the config file, the most specific first, as ssh does with an ssh_config."""
    names = config.patterns_of(host.name.replace("*", "x"))
    own = host.name.lower()
    return [
        *([config.hosts[own]] if own in config.hosts else []),
        *(config.hosts[each] for each in names if each != own),
    ]


def _alive_lines(layers: Layers, name: str) -> list[str]:
    """Return how long ssh waits for an answer: at least as long as the client tries to reconnect.

    For a sandbox whose provider may be asked, ssh sends nothing by itself, as that would keep the sandbox awake, or
    wake it.
    """
    provider = layers.text("provider")
    may_sleep = provider == "e2b" or (provider is None and layers.is_sandbox(name))
    count = FEWEST_ALIVE
    if not layers.flag("no-resume"):
        count = max(count, math.ceil(layers.number("reconnect-for") / ALIVE_INTERVAL))
    return [f"ServerAliveInterval {0 if may_sleep else ALIVE_INTERVAL}", f"ServerAliveCountMax {count}"]
