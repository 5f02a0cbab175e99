"""The test bed: real sshd, websocat, edges and proxies on free loopback ports, started for tests and ended with them.
scripts/bench and scripts/simulate measure on it, too.

Nothing here imports `tunnel`: the product is started as its users start it, as a program of its own.
"""
