"""The laptop's end of a tunnel: options, dialling, and the relay that is ssh's ProxyCommand.

What the ProxyCommand imports is the standard library, `tunnel.protocol`, `tunnel.net` and this room, and of the standard
library only what starts quickly: ssh starts this program for every connection.
"""
