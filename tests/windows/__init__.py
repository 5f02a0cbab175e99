"""The client and the bridge on Windows, as far as CPython for Windows under wine can tell."""
