"""``python -m tunnel`` is ``wstunnel-py``. In a checkout, a Python that pip would refuse can run it."""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write("wstunnel-py: needs Python 3.11 or later; this is Python %d.%d\n" % sys.version_info[:2])
    sys.exit(2)

from tunnel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
