"""The parts of scripts/simulate: a fleet and its costs, the storm of those who come back, measuring, the report."""
