"""`python -m g2lstm`: the same as the command `g2lstm`."""

import sys

from g2lstm.command_line import main

if __name__ == "__main__":
    sys.exit(main())
