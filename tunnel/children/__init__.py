"""Child processes: only this room starts, signals and reaps them.

Every child of the product is a `tunnel.children.child.Child`: programs on terminals, commands of SSH sessions, the
helpers behind ``/files``, the process of the embedded SSH server and those of its connections. As one owner knows what
has been reaped, no signal can hit a stranger that has got the number of a child. The rooms that use this one know what
a child is for; this one imports none of them.

- `child`: one child, from its start until it is reaped.
- `spawn`: starting one on a pty or on pipes.
- `terminal`: the size and modes of a pty.
- `dispositions`: the default signals that each one starts with.
- `family`: everything that a child has started, also what has left its session, and how to kill all of it.
- `parent_death`: letting children end with the service.
- `orphans`: reaping what a service that is process 1 inherits.
- `exits`: noticing the end of a child.
- `users`: whom a child runs as, its environment and its folders.
- `proc`: what /proc tells about processes.
"""
