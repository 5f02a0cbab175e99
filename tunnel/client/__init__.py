"""The client's end of a tunnel: options, dialling, and the relay that is ssh's ProxyCommand.

ssh starts this program for every connection. So the ProxyCommand imports only `tunnel.protocol`, `tunnel.net`, this
package, and modules of the standard library that load quickly.

- `proxycommand`: one run of the ProxyCommand. `forward`: local ports. `sockets`, `streams`: tunnels for programs.
  `tunnel_options`: what these take.
- `options`: the table of options. `words`: reading a command line. `config`: the config file. `layers`: where the value
  of a setting comes from. `settings`: the result. `credentials`: its secrets, which must not be shown.
  `client_key`: the file with the client certificate's key.
- `dial`: one connection, from DNS to the upgrade. `tcp`, `proxy`, `tls`, `handshake`: its parts. `address`: URLs and
  templates.
- `tunnel`: dials, and chooses the kind of tunnel. `relay`: moves the bytes. `plain`, `resumable`: the lifecycles.
- `waiting`: for a bridge that is not up yet. `outage`: when to dial again, and when to give up. `redial`: dialling
  while a relay runs. `resume_offset`: the offset at which a session continues.
- `sandbox`: the sandbox that a name stands for, and its provider. `sandbox_time`: extends its time while it is in use.
- `stdio`, `threaded_stdio` (Windows), `local_socket`, `socket_pair`: local ends of tunnels. `signals`: signals that end
  a relay. `trace`: ``-v``.
"""
