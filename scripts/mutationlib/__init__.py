"""Mutation testing: change the code in small ways, and see which changes no test notices. `mutmut` does the work.

main       the command: which modules, how many mutants, the report
copy       the copy of the repository that is mutated
engine     mutmut: the changes, the runs, the outcomes
plugin     pytest's part of a run: time limits, and tests that do the same every time
survivors  the list of mutants that may live, and why: tests/mutation/survivors.toml
"""
