"""The bridge, the sandbox's end of a tunnel: listening, handshakes, access control, and one relay per tunnel.

- `bridge`: the bridge as a whole. `settings`: its options. `state`: what its connections share.
- `listen`: accepting. `connection`: one connection, from TLS to its line in the log. `handshake`, `http`: its request
  and the answer. `access`: tokens and origins.
- `target`: the interface of targets. `address_target`: a TCP or Unix address. `lookups`: its name.
  `listening_sockets`: does anything listen there? `speed_test`: the bridge itself.
- `relay`: moves the bytes. `busy`: busy sockets. `splices`: who may splice. `plain`, `resumable`: the lifecycles.
  `session_registry`: sessions that may be resumed.
- `shares`: who is evicted when a resource is used up. `budget`: the memory of sessions.
- `certificates`, `tls_channel`: TLS. `secret_files`: files of secrets that others can read.
- `log`, `log_output`, `repeats`: the log. `supervision`: tasks that must not end. `systemd`: its protocols.
- `pidfile`: the file with the process ID.
"""
