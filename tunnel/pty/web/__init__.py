"""The terminal in the browser: a page with its scripts and xterm.js, all included in this package.

The page is an ordinary client of `tunnel.pty.server.rpc`. Its files need no token; its calls do. ``vendor/`` contains
xterm.js 6.0.0 and its fit addon 0.11.0, with their licence. `invitation` says how to open the page.
"""

from __future__ import annotations

from importlib.resources import files

from aiohttp import web

_TYPES = {
    "index.html": "text/html",
    "terminal.css": "text/css",
    "terminal.js": "text/javascript",
    "connect.js": "text/javascript",
    "replay.js": "text/javascript",
    "address.js": "text/javascript",
    "clipboard.js": "text/javascript",
    "kept.js": "text/javascript",
    "keys.js": "text/javascript",
    "loading.js": "text/javascript",
    "look.js": "text/javascript",
    "page.js": "text/javascript",
    "screen.js": "text/javascript",
    "touch.js": "text/javascript",
    "viewport.js": "text/javascript",
    "widths.js": "text/javascript",
    "words.js": "text/javascript",
    "vendor/xterm.css": "text/css",
    "vendor/xterm.js": "text/javascript",
    "vendor/addon-fit.js": "text/javascript",
    "vendor/LICENSE": "text/plain",
}
# Only files from this service, and inline styles, because xterm.js creates style elements.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

PATHS = ("/", *(f"/{name}" for name in _TYPES if name != "index.html"))


def routes() -> list[web.RouteDef]:
    """Return the routes of the page, at `PATHS`. The files are read now and kept in memory."""
    return [_route("/" if name == "index.html" else f"/{name}", name, kind) for name, kind in _TYPES.items()]


def _route(path: str, name: str, kind: str) -> web.RouteDef:
    body = files(__package__).joinpath(*name.split("/")).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

    return web.get(path, answer)
