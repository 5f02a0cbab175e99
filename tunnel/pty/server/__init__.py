"""The terminal service: E2B's process service and ``/files``, served over HTTP by aiohttp.

- `service`: the application, its listeners, and how it stops.
- `accepting`, `connection`: connections, their number, and the limits of each.
- `request_checks`, `authentication`, `rejection_delay`, `compression`: checks of every request before its
  handler.
- `rpc`: the methods of ``process.Process``. `processes`, `process`: the running processes. `users`: their users.
- `broadcast`, `scrollback`: a process's output, for several subscribers. `modes`, `colours`: the state of a terminal
  where the scrollback starts.
- `files`, `multipart`, `file_shares`, `file_process`: uploads and downloads.
"""
