"""asyncssh's connection and session channel, bound to the credential that the client has logged in with.

asyncssh stores the options of a key or certificate when a client merely asks about it, and some versions keep them when
another one logs in. Here `credentials` judges each request separately, and only the `Grant` of the request with a valid
signature counts afterwards. Without a grant nothing is allowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED

from tunnel.ssh.server.credentials import Grant, NotAdmitted, judge

_SUBSYSTEMS = {"sftp": "internal-sftp"}  # subsystem → what sshd puts into SSH_ORIGINAL_COMMAND for it


class Connection(asyncssh.SSHServerConnection):
    """One connection. ``host`` is the client's IP address, None if it is unknown.

    ``on_data`` is called when the client first sends data, ``on_refused`` with the reason when a credential is refused,
    unless it is simply unknown.
    """

    def __init__(
        self,
        options: asyncssh.SSHServerConnectionOptions,
        host: str | None,
        on_data: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self.keys: asyncssh.SSHAuthorizedKeys | None = None  # the authorized keys of the user that the client named
        self.grant: Grant | None = None
        self._host = host
        self._on_data: Callable[[], None] | None = on_data
        self._on_refused = on_refused
        self._is_judging = False

    def data_received(self, data: bytes, datatype: Any = None) -> None:
        """Process bytes from the client."""
        if self._on_data is not None:
            self._on_data()
            self._on_data = None
        super().data_received(data, datatype)

    # --- Authentication

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Return whether a key or certificate may log in, and, if ``msg`` is given, whether ``signature`` is valid."""
        self.grant = None
        if self.keys is None:
            return False
        try:
            grant = judge(self.keys, key_data, username, self._host)
        except NotAdmitted as exc:
            if str(exc):
                self._on_refused(str(exc))
            return False
        self._is_judging = True
        try:
            is_valid = await super().validate_public_key(username, key_data, msg, signature)
        finally:
            self._is_judging = False
        if is_valid and msg:
            self.grant = grant
        return is_valid

    # --- Permissions, as asyncssh asks for them

    def get_key_option(self, option: str, default: object = None) -> object:
        """Return an option of the credential's line in authorized_keys."""
        if self._is_judging:
            return super().get_key_option(option, default)
        return default if self.grant is None else self.grant.key_options.get(option, default)

    def check_key_permission(self, permission: str) -> bool:
        """Return whether the line in authorized_keys grants a permission."""
        return self.grant is not None and not self.grant.key_options.get(f"no-{permission}".lower(), False)

    def get_certificate_option(self, option: str, default: object = None) -> object:
        """Return an option of the certificate."""
        if self._is_judging:
            return super().get_certificate_option(option, default)
        options = None if self.grant is None else self.grant.certificate_options
        return default if options is None else options.get(option, default)

    def check_certificate_permission(self, permission: str) -> bool:
        """Return whether the certificate grants a permission; a plain key restricts nothing here."""
        if self.grant is None:
            return False
        options = self.grant.certificate_options
        return options is None or bool(options.get(f"permit-{permission}", False))

    def create_server_channel(
        self, encoding: str | None = "", errors: str = "", window: int = 0, max_pktsize: int = 0
    ) -> Channel:
        """Return the channel of a new session."""
        if self.grant is None:
            raise asyncssh.ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, "Nobody has logged in")
        channel = super().create_server_channel(encoding, errors, window, max_pktsize)
        channel.__class__ = Channel  # asyncssh has no option for the class of channels
        if not isinstance(channel, Channel):
            raise TypeError(channel)
        channel.forced_command = self.grant.forced_command
        channel.variables = self.grant.variables
        return channel


class Channel(asyncssh.SSHServerChannel[bytes]):
    """The channel of one session. ``forced_command`` is the only command that may run, None for any."""

    forced_command: str | None = None
    variables: Mapping[str, str] = {}  # set by the line in authorized_keys
    asked: str | None = None  # the command that the client asked for, None for a shell
    _has_asked = False

    def _start_session(self, command: str | None = None, subsystem: str | None = None) -> bool:
        if not self._has_asked:
            self._has_asked = True
            self.asked = command if subsystem is None else _SUBSYSTEMS.get(subsystem)
        if self.forced_command is not None and subsystem is not None and subsystem not in _SUBSYSTEMS:
            return False
        return super()._start_session(command, subsystem)
