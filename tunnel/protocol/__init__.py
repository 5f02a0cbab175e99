"""The protocol, Sans-I/O: bytes go in, bytes and events come out. No sockets, files, event loops or threads.

RFC 6455:
    frames            parse frames, write their headers
    masking           XOR of payloads
    upgrade           the client's HTTP handshake
    numbers           decimal and hexadecimal numbers from a peer

Streams, one at each end of a tunnel:
    byte_stream       the interface of every stream: what the pump and its drivers call
    plain_stream      Wire 1: the bytes of one WebSocket connection
    resumable_stream  Wire 2: a session, which survives the loss of its connections
    read_buffers      the memory that sources and wires are read into

Parts of both streams:
    outbox            frames that wait for the wire
    frame_budget      a limit for frames without effect

Parts of a plain stream:
    codec             the form of messages; the default are binary ones
    keepalive         when to ping, and when to give up
    beginning         the first message decides: plain stream or session

Parts of a resumable stream:
    control           the control lines, and the request to resume
    session_state     the state of a session that survives the loss of a connection
    session_connection  the state that is lost with a connection
    sender            the sending direction: what is not acknowledged yet
    receiver          the receiving direction: what is not delivered yet
    replay            the memory of the bridge's sender
    masked_replay     the memory of the client's sender
    liveness          when a connection counts as dead
    message_size      the size limit of messages, learnt from lost connections

Streams of a bridge that is restarted:
    capture           the state of a stream for another process

Errors are in `tunnel.errors`.
"""
