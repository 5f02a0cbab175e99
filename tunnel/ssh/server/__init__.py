"""The embedded SSH server, for machines without OpenSSH: asyncssh behind a bridge, in a separate process.

    bridge ── control: connected sockets ──▶ listener ── fork ──▶ one process for each connection
           ◀── events: logins, ends ─────────┴──────────────────────┘

It listens on no port. As with sshd, each connection is served by its own process, so a slow disk or a crash affects
neither the bridge nor other connections. The bridge's side is `tunnel.ssh.server_process`, which shares nothing with
this package but the messages described in `messages`.

- `listener`: takes connections from the bridge and forks. `messages`: the messages between the two.
- `login`, `connection`, `credentials`, `keys`: who may log in, and what they may do then.
- `commands`: the shell or command of a session. `modes`, `variables`: its terminal modes and environment.
- `files`, `scp`: SFTP and legacy scp.
"""
