"""``python -m analyses`` is the command ``interp``."""

import sys

from analyses.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
