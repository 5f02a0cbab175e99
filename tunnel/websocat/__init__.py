"""websocat's command lines, run by this project's client and bridge.

- `run`: from the words to the exit code. `command_line`, `options`, `addresses`: what the words say. `plan`: what they
  ask for.
- `dialling`: does it with `tunnel.client`. `logins`: users and passwords. `serving`: does it with `tunnel.server`. Only
  what is needed is imported.
- `targets`: what a bridge leads to beside sockets: standard input and output, programs, other WebSockets.
- `messages`: what is websocat's own on the wire: text, lines, and when a direction ends.
"""
