"""The parts of scripts/build.

main           the command line
source         the files to build from, and their time
distributions  the sdist, and the wheel that is built from it
vendored       the packages that go into the single file, in their locked versions
archive        the single file: the package and the packages that it needs
single_file    the files that start it
"""
