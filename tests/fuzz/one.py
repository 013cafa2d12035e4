"""Fuzzes one target with atheris until the time is over: python -m tests.fuzz.one TARGET OPTIONS

The options are libFuzzer's: folders of inputs, the first of which gets what is new.
"""

from __future__ import annotations

import shlex
import sys

import atheris


def main() -> None:
    """Run; ends the process."""
    with atheris.instrument_imports(include=["eventlog"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[sys.argv[1]]
    # libFuzzer hands this to a shell whenever it needs another process, as in a merge.
    again = shlex.join([sys.executable, "-m", "tests.fuzz.one", sys.argv[1]])
    atheris.Setup([again, *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
