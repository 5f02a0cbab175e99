"""The clients of a terminal service, ours or E2B's: `tunnel.Sandbox` and `tunnel.AsyncSandbox`.

- `calls`: requests, answers, and which calls may be repeated. Sans-I/O.
- `stream`: one terminal's output over several connections. `replay`: old output without its queries. Sans-I/O.
- `model`: sizes, processes and results. `endpoint`: where a service is. `access`: that of a sandbox whose provider
  is asked.
- `http`: requests, httpx options and errors, for both clients. `one_write`: what goes out in one packet.
- `http_sync`, `http_async`: requests and output streams over httpx. `deadline`: time limits for the former.
- `sync`, `aio`: the public classes. They are twins; a test keeps their signatures and docstrings equal.
"""
