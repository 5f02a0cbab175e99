"""The clients of a terminal service, ours or E2B's: `tunnel.Sandbox` and `tunnel.AsyncSandbox`.

What is said over the wire, and when, is decided without I/O in `calls` and `stream`; `sync` and `aio` are the two thin
faces over it, which share what concerns httpx in `http`.
"""
