"""The API of the provider that runs sandboxes: E2B, or another one with the same API.

The API is that of E2B's OpenAPI description (github.com/e2b-dev/E2B, spec/openapi.yml). This package knows nothing of
tunnels and settings: its caller (`tunnel.client.sandbox`) opens the connections and has the key.

- `api`: the calls. `exchange`: one HTTP exchange within a time limit. `answers`: parses the answers.
- `cache`: access to sandboxes, kept in private files for later programs.
- `keepalive`: when to extend a sandbox's time. `sleep`: whether to wake a paused sandbox. Sans-I/O.
"""
