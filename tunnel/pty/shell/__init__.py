"""``wstunnel-py shell``: a terminal in the sandbox, shown on the local terminal or connected to pipes.

- `run`: one run of the command, from start to exit code. `settings`: its options.
- `keyboard`: standard input. `escapes`: commands to this program within it, such as ``~.``.
- `screen`: standard output. `leaving`: what a program has changed about the local terminal.
- `local`: size and modes of the local terminal. `console`: the same of Windows' console.
"""
