"""``wstunnel-py shell``: a terminal in the sandbox on the terminal that it is typed at, or in a pipe.

`session` runs it; `local` is the terminal at this end, `escapes` what the user says to this program instead of to the
remote one, `keyboard` the way of the input. POSIX only, but only `local` imports what other systems do not have.
"""
