"""The parts of scripts/simulate: fleet and costs, the simulation of reconnecting clients, measurement, report."""
