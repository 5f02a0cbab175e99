"""The laptop's end of a tunnel: options, dialling, and the relay that is ssh's ProxyCommand.

ssh starts this program for every connection, so what the ProxyCommand imports is `tunnel.protocol`, `tunnel.net`, this
room, and of the standard library only what starts quickly.

- `proxycommand`: one run of the ProxyCommand. `forward`: local ports. `sockets`, `streams`: tunnels for programs.
  `tunnel_options`: what these take.
- `options`: the table of options. `words`: reading a command line. `config`: the config file. `layers`: which of the
  places a value comes from. `settings`: the result. `credentials`: what of it must never be shown.
  `client_key`: the file with the client certificate's key.
- `dial`: one connection, from DNS to the upgrade. `tcp`, `proxy`, `tls`, `handshake`: its parts. `address`: URLs and
  templates.
- `tunnel`: dials, and chooses the kind of tunnel. `relay`: moves the bytes. `plain`, `resumable`: the lifecycles.
- `waiting`: for a bridge that is not up yet. `outage`: when to dial again, and when to give up. `redial`: dialling
  beside a relay. `resume_offset`: where a session goes on.
- `stdio`, `local_socket`, `socket_pair`: local ends of tunnels. `signals`: signals that end a relay. `trace`: ``-v``.
"""
