"""Terminals in a sandbox: the protocol, the service that runs them, and the clients that use them.

- `protocol`: what both ends say.
- `server`: the service, and `web`, the page for browsers that it can serve.
- `client`: the clients in Python, synchronous and asynchronous.
- `shell`: the command ``wstunnel-py shell``, a user's own terminal joined to a remote one.

The service and the clients never import each other.
"""
