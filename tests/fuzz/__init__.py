"""Fuzz targets: code that reads untrusted bytes, run on malformed input.

Each module of `tests.fuzz.targets` has one function ``target(data)`` that raises when something is wrong: anything but
the error that is documented, or a property that does not hold. The corpus beside it has an example of each form that
the target knows, and every input that once failed. CI runs a fixed number of mutations of it (`mutation`);
``scripts/test --full`` lets atheris look for inputs that reach new code (`guided`).
"""
