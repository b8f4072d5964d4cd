"""`python -m abaw_expr`."""

import sys

from abaw_expr.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
