"""Terminals: the service that runs processes on a pty, and the clients that talk to it.

`wire` is the protocol and is shared; the service (`service`, `process`, …) and the clients never import each other.
"""
