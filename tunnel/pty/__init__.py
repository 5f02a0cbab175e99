"""Terminals in a sandbox: the protocol, the service that runs them, and the clients that use them.

- `protocol`: the messages and their encoding, which both ends share.
- `server`: the terminal service; `web`: the browser page that it can serve.
- `client`: the Python clients, synchronous and asynchronous.
- `shell`: the command ``wstunnel-py shell``, which shows a remote terminal on the local one.

The service and the clients never import each other.
"""
