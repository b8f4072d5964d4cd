"""`python -m abaw_expr`."""

import sys

from abaw_expr.cli import main

if __name__ == "__main__":
    sys.exit(main())
