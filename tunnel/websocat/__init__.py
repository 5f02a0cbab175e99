"""websocat's command lines, run by this project's client and bridge.

- `run`: from the words to the exit code. `command_line`, `options`, `addresses`: parse the words. `plan`: decides what
  to do.
- `dialling`: does it with `tunnel.client`. `logins`: users and passwords. `serving`: does it with `tunnel.server`. Only
  what is needed is imported.
- `targets`: targets besides addresses: standard input and output, programs, other WebSockets.
- `messages`: websocat's own messages: text, lines, and the end of a direction.
"""
