"""Starts the single file, if Python is new enough. Any Python can run this module and report that it is too old."""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write("wstunnel-py: needs Python 3.11 or later; this is Python %d.%d\n" % sys.version_info[:2])
    sys.exit(2)

# Not by a statement, because that module is beside this one only in the archive.
sys.exit(__import__("wstunnel_py_start").main(__file__))
