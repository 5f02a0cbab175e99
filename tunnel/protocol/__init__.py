"""The wire, Sans-I/O: bytes in, bytes and events out. No sockets, files, clocks, event loops or threads in here.

Every end of every tunnel is driven by an object of this room; see `frames` (RFC 6455 frames), `upgrade` (the client's
HTTP handshake), `stream` (one byte stream over messages) and `errors` (what can go wrong, in one table).
"""
