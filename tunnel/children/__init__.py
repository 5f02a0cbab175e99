"""Child processes: only this package starts, signals and reaps them.

Every child of the product is a `tunnel.children.child.Child`: programs on terminals, commands of SSH sessions, the
processes behind ``/files``, the embedded SSH server and the processes of its connections. Because one owner knows which
children have been reaped, no signal can hit another process that has reused a pid. This package does not know what a
child is for, and imports none of the packages that use it.

- `child`: one child, from its start until it is reaped.
- `spawn`: starting a child on a pty or on pipes.
- `terminal`: the size and modes of a pty.
- `handover`: another program in the place of this one.
- `dispositions`: default signal dispositions for children.
- `family`: finding, signalling and killing all descendants of a child, also those that have left its session.
- `parent_death`: children that end with the service.
- `orphans`: reaping inherited children, for a service that is process 1.
- `exits`: noticing the end of a child.
- `users`: the user of a child, its environment and its folders.
- `proc`: reading /proc.
"""
