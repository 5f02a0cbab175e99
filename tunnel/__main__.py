"""``python -m tunnel`` is ``wstunnel-py``."""

import sys

from tunnel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
