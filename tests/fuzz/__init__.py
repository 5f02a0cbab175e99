"""Fuzz targets: what reads bytes of strangers, run on bytes that nobody would send on purpose.

Each module of `tests.fuzz.targets` has one function ``target(data)`` that raises when something is wrong: anything but
the error that is documented, or a property that does not hold. The corpus beside it has an example of each form that
the target knows, and every find. CI runs a fixed number of mutations of it (`mutation`); ``scripts/test --full`` lets
atheris look for inputs that reach code which none has reached before (`guided`).
"""
