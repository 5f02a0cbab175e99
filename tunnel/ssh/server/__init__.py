"""The embedded SSH server, for machines without an OpenSSH: asyncssh behind a bridge, in a process of its own.

    bridge ── control: connected sockets ──▶ listener ── fork ──▶ one process for each connection
           ◀── events: logins, ends ─────────┴──────────────────────┘

Nothing listens on a port. As with sshd each connection is served by a process of its own, so that neither a slow disk
nor a crash in one touches the bridge or another connection. The bridge's end is `tunnel.ssh.embedded`, which shares
nothing with this room but the messages described in `messages`.
"""
