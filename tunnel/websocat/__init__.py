"""websocat's command lines, run by this project's client and bridge.

`command_line` reads the words and `addresses` what stands between them; `plan` decides what they ask for; `dialling`
and `serving` do it with `tunnel.client` and `tunnel.server`, of which only the one that is needed is imported.
`messages` is what is websocat's own on the wire: text, lines, and when a direction ends.
"""
