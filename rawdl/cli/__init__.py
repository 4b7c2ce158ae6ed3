"""The command line.

main     the grammar, and which command runs
get      rawdl URL...: downloads, with their progress
options  what was asked for, and the client that does it
jar      the cookies, and their files
prompt   passwords that are not on the command line
demo     rawdl demo: what the library does, against an origin of its own
meter    the progress line, and the numbers in it
output   standard output as a sink
signals  what SIGINT and SIGTERM do
report   error messages, exit codes, JSON events
"""
