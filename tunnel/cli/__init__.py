"""The command line: click commands, one file per command group, without further logic.

`main` is the entry point. It takes the ProxyCommand's way without importing click; everything else goes to `group`.
"""
