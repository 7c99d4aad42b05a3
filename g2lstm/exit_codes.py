"""Exit codes of the command `g2lstm`."""

OK = 0
FAILED = 1  # a verification, or whoever read the output has gone
WRONG = 2  # what was asked for
INTERRUPTED = 130  # by Ctrl-C
