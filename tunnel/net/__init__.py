"""Sockets and files for both ends of a tunnel: non-blocking channels, TLS, and the pump that moves the bytes.

This package knows only sockets and `tunnel.protocol`, and no event loop.

- `pump`: moves the bytes of a tunnel. `channel`, `tls`: what it reads and writes. `splice`, `splice_source`: shortcuts
  for payload, at the client and at the bridge. `batches`: fewer reads of busy sockets. `waiter`: waits for descriptors.
- `async_sockets`: plain sockets in asyncio. `event_loop`: its loop, and signals there.
- `address`: HOST:PORT and unix:PATH. `names`: host names. `listening`: listening sockets. `forwarded`: X-Forwarded-For.
- `backoff`: delays between attempts, with jitter. `time_limit`: time limits that set no timer unless something waits.
- `descriptors`: the limit of open files. `error_texts`: texts for errno. `unread`: whether a descriptor has data.
- `files`: opening configuration and secrets. `home`: the user's folders. `standard_streams`: descriptors 0 to 2.
"""
