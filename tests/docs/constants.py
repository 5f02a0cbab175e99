"""Which constants of the code docs/wire.md and docs/terminals.md list, by the names that these pages give them.

All modules that the two tests know are imported here. If a number has several constants, all must have the same value.
`WIRE_ELSEWHERE` and `TERMINALS_ELSEWHERE` are constants that do not belong on these pages.
"""

from __future__ import annotations

from pathlib import Path

from tests.docs.page import Constant, value_of
from tunnel.client import handshake as client_handshake
from tunnel.client import options as client_options
from tunnel.client import outage, relay, resume_offset
from tunnel.client import resumable as client_resumable
from tunnel.client import tunnel as client_tunnel
from tunnel.net import async_sockets
from tunnel.protocol import (
    beginning,
    control,
    frame_budget,
    frames,
    keepalive,
    liveness,
    message_size,
    plain_stream,
    read_buffers,
    receiver,
    replay,
    session_state,
    upgrade,
)
from tunnel.pty import web
from tunnel.pty.client import calls, endpoint
from tunnel.pty.client import http as client_http
from tunnel.pty.client import stream as client_stream
from tunnel.pty.protocol import framing, messages
from tunnel.pty.server import (
    accepting,
    broadcast,
    connection,
    file_process,
    file_shares,
    files,
    process,
    processes,
    rejection_delay,
    request_checks,
    rpc,
    service,
)
from tunnel.restart import part
from tunnel.server import budget, handshake, http, session_registry, settings, speed_test, state
from tunnel.server import connection as bridge_connection
from tunnel.server import relay as bridge_relay

# ---- docs/wire.md

WIRE: dict[str, tuple[Constant, ...]] = {
    "head-limit": ((upgrade, "HEAD_LIMIT"), (http, "HEAD_LIMIT")),
    "interim-limit": ((upgrade, "MAX_INTERIM"),),
    "body-limit": ((upgrade, "BODY_LIMIT"),),
    "body-wait": ((client_handshake, "BODY_WAIT"),),
    "retry-after": ((http, "RETRY_AFTER"),),
    "slow-answer": ((bridge_connection, "SLOW_ANSWER"),),
    "largest-message": (
        (message_size, "LARGEST_MESSAGE"),
        (read_buffers, "FRAME_LIMIT"),
        (replay, "SEGMENT_LIMIT"),
    ),
    "smaller-message": ((message_size, "SMALLER_MESSAGE"),),
    "smallest-message": ((message_size, "SMALLEST_MESSAGE"),),
    "least-message": ((message_size, "LEAST_MESSAGE"),),
    "fruitless-losses": ((message_size, "_LOSSES"),),
    "control-frame-limit": ((frames, "MAX_CONTROL"),),
    "held-back": ((frames, "MAX_CLOSE"),),
    "turn-frames": ((frame_budget, "FRAMES_PER_TURN"),),
    "idle-frames": ((frame_budget, "IDLE_FRAMES"),),
    "idle-frames-per-second": ((frame_budget, "IDLE_FRAMES_PER_SECOND"),),
    "first-copy": ((beginning, "COPY_LIMIT"),),
    "first-message-size": ((beginning, "MESSAGE_SIZE"),),
    "first-wait": ((beginning, "WAIT"),),
    "first-wait-after-end": ((beginning, "WAIT_AFTER_END"),),
    "first-wait-when-full": ((beginning, "WAIT_WHEN_FULL"),),
    "false-starts": ((client_tunnel, "MAX_FALSE_STARTS"),),
    "line-limit": ((control, "LINE_LIMIT"),),
    "line-accept-limit": ((control, "MESSAGE_LIMIT"),),
    "count-limit": ((control, "COUNT_LIMIT"),),
    "window-default": ((session_state, "WINDOW"), (budget, "WINDOW")),
    "window-smallest": ((budget, "SMALLEST_WINDOW"),),
    "window-limit": ((control, "WINDOW_LIMIT"),),
    "ack-bytes": ((receiver, "ACK_BYTES"),),
    "ack-delay": ((receiver, "ACK_DELAY"),),
    "ping-interval": ((keepalive, "PING_INTERVAL"),),
    "ping-timeout": ((keepalive, "PING_TIMEOUT"),),
    "stall-limit": ((keepalive, "STALL_LIMIT"),),
    "close-limit": ((plain_stream, "CLOSE_LIMIT"),),
    "request-after": ((liveness, "SILENCE_BEFORE_REQUEST"),),
    "dead-after": ((liveness, "SILENCE_AFTER_REQUEST"),),
    "ack-limit": ((liveness, "ACK_LIMIT"),),
    "probe-limit": ((liveness, "PROBE_LIMIT"),),
    "jump": ((client_resumable, "JUMP"), (session_registry, "JUMP")),
    "resume-first-wait": ((resume_offset, "FIRST_MESSAGE_LIMIT"),),
    "first-delay": ((outage, "FIRST_DELAY"),),
    "longest-delay": ((outage, "LONGEST_DELAY"),),
    "growth": ((outage, "GROWTH"),),
    "notice-after": ((outage, "NOTICE_AFTER"),),
    "longest-retry-after": ((outage, "LONGEST_RETRY_AFTER"),),
    "grace": ((outage, "GRACE"), (session_registry, "GRACE")),
    "stale-limit": ((outage, "STALE_LIMIT"),),
    "credentials-limit": ((outage, "CREDENTIALS_LIMIT"),),
    "fruitless": ((outage, "FRUITLESS"),),
    "fruitless-limit": ((client_resumable, "FRUITLESS_LIMIT"),),
    "unconfirmed-wait": ((session_registry, "UNCONFIRMED_WAIT"),),
    "max-handshakes": ((state, "MAX_HANDSHAKES"),),
    "max-farewells": ((state, "MAX_FAREWELLS"),),
    "farewell-bridge": ((bridge_relay, "FAREWELL_LIMIT"),),
    "farewell-client": ((relay, "FAREWELL_LIMIT"),),
    "linger-bridge": ((async_sockets, "LINGER_SECONDS"),),
    "linger-bytes": ((async_sockets, "LINGER_BYTES"),),
    "unheard": ((bridge_relay, "UNHEARD"),),
    "linger-client": ((relay, "LINGER_LIMIT"),),
    "speed-time": ((speed_test, "TIME_LIMIT"),),
}
CLIENT_DEFAULTS = {option.name: option.default for option in client_options.OPTIONS}
BRIDGE_DEFAULTS = settings.BridgeSettings()
# The defaults of options, by their names on the command line; memory is in MiB there.
MIB = 1 << 20
BRIDGE_OPTIONS = {
    name: float(getattr(BRIDGE_DEFAULTS, name.replace("-", "_"))) * (MIB if name == "resume-memory" else 1)
    for name in (
        "handshake-timeout", "dial-timeout", "resume-for", "resume-memory", "max-tunnels", "max-detached", "drain",
    )
}  # fmt: skip
CLIENT_OPTIONS = {
    option.name: float(option.default)
    for option in client_options.OPTIONS
    if option.name in ("connect-timeout", "reconnect-for") and isinstance(option.default, (int, float))
}
WIRE_VALUES = {**{name: value_of(group[0]) for name, group in WIRE.items()}, **BRIDGE_OPTIONS, **CLIENT_OPTIONS}
# Defaults of both ends, which must be the constants of the protocol.
SHARED_OPTIONS = {"ping-interval": "ping-interval", "ping-timeout": "ping-timeout", "max-message": "largest-message"}

# Where control lines are parsed, and where the errors of sessions come from.
LINES, SESSIONS = control, session_state
WORDS: tuple[Constant, ...] = (
    (control, "SUBPROTOCOL"),
    (control, "SPEED_TEST"),
    (handshake, "HEALTH_PATH"),
    (handshake, "BINARY"),
)
CODES = {name: value for name, value in vars(frames).items() if isinstance(value, int) and 1000 <= value < 5000}

# Opcodes (RFC 6455), sizes of buffers, what shares go by (docs/bridge.md), selectors.
WIRE_ELSEWHERE = (
    "CONTINUATION", "TEXT", "BINARY", "CLOSE", "PING", "PONG", "MAX_HEADER",
    "SMALLEST_CHUNK", "LARGEST_CHUNK", "MAX_SPARE", "MAX_SEGMENTS", "READ_AHEAD", "SOME", "PASS_WINDOW",
    "LEAST_PASSED", "PASSED", "ACK_PATIENCE", "SMALL_PIECES", "RESERVED", "LONGEST", "LONGEST_READ",
    "OWN_SHARE", "UNCONFIRMED", "DETACHED", "ATTACHED", "GREETING", "FIRST_LOOK", "LONGEST_LOOK", "LEAST_WAIT",
)  # fmt: skip

# ---- docs/terminals.md

TERMINALS: dict[str, tuple[Constant, ...]] = {
    "message-limit": ((framing, "MESSAGE_LIMIT"),),
    "error-limit": ((framing, "ERROR_LIMIT"),),
    "tag-limit": ((messages, "TAG_LIMIT"),),
    "size-limit": ((messages, "SIZE_LIMIT"),),
    "body-limit": ((rpc, "BODY_LIMIT"),),
    "write-limit": ((rpc, "WRITE_LIMIT"),),
    "terminate-limit": ((rpc, "TERMINATE_LIMIT"),),
    "keepalive-default": ((rpc, "KEEPALIVE_DEFAULT"),),
    "head-limit": ((connection, "HEAD_LIMIT"),),
    "idle-limit": ((connection, "IDLE_LIMIT"),),
    "linger-limit": ((connection, "LINGER_LIMIT"),),
    "head-size": ((connection, "HEAD_SIZE"),),
    "ahead-size": ((connection, "AHEAD_SIZE"),),
    "answer-limit": ((request_checks, "ANSWER_LIMIT"),),
    "refusal-limit": ((request_checks, "REFUSAL_LIMIT"),),
    "refusals-limit": ((request_checks, "REFUSALS_LIMIT"),),
    "slow-answer": ((rejection_delay, "DELAY"),),
    "slow-answers": ((rejection_delay, "AT_ONCE"),),
    "piece": ((broadcast, "PIECE"),),
    "lag": ((broadcast, "LAG"),),
    "lag-limit": ((broadcast, "LAG_LIMIT"),),
    "credit": ((broadcast, "CREDIT"),),
    "credit-bytes": ((broadcast, "CREDIT_BYTES"),),
    "patience": ((broadcast, "PATIENCE"),),
    "return-credit": ((broadcast, "RETURN_CREDIT"),),
    "return-limit": ((process, "RETURN_LIMIT"),),
    "unsent": ((broadcast, "UNSENT"),),
    "hold-limit": ((part, "HOLD_LIMIT"),),
    "input-limit": ((process, "INPUT_LIMIT"),),
    "input-patience": ((process, "INPUT_PATIENCE"),),
    "input-keys": ((process, "INPUT_KEYS"),),
    "retention": ((processes, "RETENTION"),),
    "retained": ((processes, "RETAINED"),),
    "retained-bytes": ((processes, "RETAINED_BYTES"),),
    "hangup-limit": ((processes, "HANGUP_LIMIT"),),
    "kill-limit": ((processes, "KILL_LIMIT"),),
    "connections-limit": ((accepting, "CONNECTIONS_LIMIT"),),
    "file-limit": ((files, "FILE_LIMIT"),),
    "files-limit": ((files, "FILES_LIMIT"),),
    "path-limit": ((files, "PATH_LIMIT"),),
    "upload-limit": ((files, "UPLOAD_LIMIT"),),
    "files-idle-limit": ((files, "IDLE_LIMIT"), (file_process, "IDLE_LIMIT")),
    "files-at-once": ((file_shares, "AT_ONCE"),),
    "files-wait-limit": ((file_shares, "WAIT_LIMIT"),),
    "spool-limit": ((file_shares, "SPOOL_LIMIT"),),
    "port": ((endpoint, "PORT"),),
    "client-piece": ((calls, "INPUT_LIMIT"),),
    "client-first-delay": ((calls, "FIRST_DELAY"),),
    "client-longest-delay": ((calls, "LONGEST_DELAY"),),
    "client-answer-limit": ((client_http, "BODY_LIMIT"),),
    "client-keepalive": ((client_stream, "KEEPALIVE"),),
    "client-silence": ((client_stream, "SILENCE"),),
    "client-unsure": ((client_stream, "UNSURE_LIMIT"),),
    "client-begin": ((client_stream, "BEGIN_LIMIT"),),
    "client-late": ((client_stream, "LATE"),),
    "client-refusals": ((client_stream, "REFUSALS"),),
}
TERMINAL_OPTIONS = {
    name: float(getattr(settings.TerminalSettings(), name.replace("-", "_")))
    for name in ("pty-scrollback", "pty-max-processes", "pty-max-subscribers")
}
TERMINAL_VALUES = {**{name: value_of(group[0]) for name, group in TERMINALS.items()}, **TERMINAL_OPTIONS}
PAGE_SCRIPT, PAGE_PATHS = Path(web.__file__).with_name("terminal.js"), web.PATHS
KEEPALIVE_BOUNDS = rpc._KEEPALIVE_LIMITS
TERMINAL_WORDS: tuple[Constant, ...] = (
    (framing, "PROTOCOL_VERSION"),
    (framing, "UNARY_TYPE"),
    (framing, "STREAM_TYPE"),
    (framing, "TIMEOUT"),
    (messages, "PREFIX"),
    (messages, "ACCESS_TOKEN"),
    (endpoint, "TOKEN_FIELD"),
    (messages, "KEEPALIVE"),
    (messages, "REPLAY_FROM"),
    (messages, "OFFSET"),
    (messages, "LIVE"),
    (messages, "PROCESS"),
    (messages, "SERVICE"),
    (messages, "ON_DISCONNECT"),
    (messages, "ONCE"),
    (messages, "INPUT_KEY"),
    (service, "_HEALTH"),
    (endpoint, "TEMPLATE"),
    (endpoint, "LOCAL"),
)
STATUS = framing.STATUS
ProcessService = rpc.ProcessService
SIGNALS = messages.SIGNALS

# Sizes of buffers, what shares go by, scripts, states and names of the client's own.
TERMINALS_ELSEWHERE = (
    "LOOK", "BODY_BUFFER", "BODY_PATIENCE", "UNKNOWN", "IDLE", "AT_WORK",
    "SPOOL_STEP", "READ", "WRITE",
    "NEW", "UNSURE", "LIVE", "OVER", "OURS",
)  # fmt: skip
