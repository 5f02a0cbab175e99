"""Python imports this when it starts with this folder on its path: our programs then splice all they can, or nothing.

``TEST_SPLICE_LEAST`` is the smallest payload, in bytes, that they splice.
"""

import os

LEAST = int(os.environ["TEST_SPLICE_LEAST"])

try:
    from tunnel.net import splice
except ImportError:  # an earlier version of ours, or somebody else's program
    pass
else:
    splice.LEAST = LEAST

try:
    from tunnel.net import pump
    from tunnel.protocol import outbox

    if LEAST == 1:
        pump.LARGE_READ = 1  # `batches` takes it over when it is imported
        from tunnel.net import batches

        batches.IN_A_ROW = 1  # a target is busy from its first byte on
except ImportError:
    pass
else:
    outbox.LEAST_PASSED = LEAST
