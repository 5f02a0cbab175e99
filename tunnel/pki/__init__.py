"""What proves who is who: bearer tokens, an authority of one's own, its certificates, and the files that hold them.

Knows nothing of connections: `tunnel.client` and `tunnel.server` are given the files that are made here. Runs wherever
the client does; permissions are a matter of POSIX systems only.
"""
