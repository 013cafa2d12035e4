"""`python scripts/benchmark`, or `python -m benchmark` from within `scripts`."""

import sys
from pathlib import Path

if not __package__:
    # Started by its path: then this directory, not the one around it, is where Python looks, and
    # the modules here would be found under other names than their own.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.cli import main

if __name__ == "__main__":
    main()
