"""The command line.

main     which command runs
grammar  which words become which options
config   options in a file
values   what the text behind a flag means
completion  which words a shell may offer
options  what was asked for, and the client that does it
lists    the URLs, also those of a file, and where each goes
feed     those that come on standard input
get      rawdl URL...: downloads, with their progress
steps    -v, --trace, and the events of --json
writeout -w
jar      the cookies, and their files
prompt   passwords that are not on the command line
conceal  those that are
bench    rawdl bench: how fast it is, again and again
demo     rawdl demo: what the library does, against an origin of its own
loopback a server of our own, in a child process
record   rawdl record: a response as it is on the wire, into a file
replay   rawdl replay: recorded responses, without a socket
compare  what other parsers make of them
readout  what is told of them
meter    the progress line, and the numbers in it
bars     several of them, as bars
display  where they are drawn or written, and the messages
watch    how far the downloads are, and which have stalled
output   standard output as a sink
signals  what SIGINT and SIGTERM do, and those that concern the display
report   error messages, exit codes, JSON events
"""
