"""The parts of scripts/soak, which runs real sessions while everything around them fails.

`main`: options, rounds, report. `lab`: the bridges, the links in front of them, and the checks while nobody is
connected. `sessions`, `page`: what users do, and the check that every byte arrives. `trouble`: the faults. The
processes under test have tests/faults/inside on their path, with which the soak moves their clock.
"""
