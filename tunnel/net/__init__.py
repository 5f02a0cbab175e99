"""What both ends of a tunnel do with sockets: non-blocking channels, TLS, and the pump that moves the bytes.

This room knows sockets and `tunnel.protocol`; it does not know who dials, who listens, or which event loop waits.

- `pump`: moves the bytes of a tunnel. `channel`, `tls`: what it reads and writes. `waiter`: waits for descriptors.
- `async_sockets`: plain sockets in asyncio.
- `address`: HOST:PORT and unix:PATH. `names`: host names. `listening`: listening sockets. `forwarded`: X-Forwarded-For.
- `backoff`: delays between attempts, with jitter. `time_limit`: limits that cost nothing unless something waits.
- `descriptors`: the limit of open files.
- `files`: opening configuration and secrets. `home`: the user's folders. `standard_streams`: descriptors 0 to 2.
"""
