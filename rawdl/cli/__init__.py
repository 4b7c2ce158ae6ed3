"""The command line.

main    the grammar, and which command runs
get     rawdl URL...: downloads, with their progress
demo    rawdl demo: what the library does, against an origin of its own
meter   the progress line, and the numbers in it
report  error messages, exit codes, JSON events
"""
