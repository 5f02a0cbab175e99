"""The laptop's end of a tunnel: options, dialling, and the relay that is ssh's ProxyCommand.

ssh starts this program for every connection, so what the ProxyCommand imports is `tunnel.protocol`, `tunnel.net`, this
room, and of the standard library only what starts quickly.
"""
