"""The terminal service: E2B's process service and ``/files``, served over HTTP by aiohttp.

- `service`: the application, its listeners, and its end.
- `accepting`, `connection`: connections, how many there may be, and what each may use up.
- `request_checks`, `authentication`, `rejection_delay`, `compression`: what every request passes before its handler.
- `rpc`: the calls of the process service. `processes`, `process`: what runs. `users`: whom it runs as.
- `broadcast`, `scrollback`: output for several readers, and what is kept of it.
- `files`, `multipart`, `file_shares`, `file_process`: uploads and downloads.
"""
