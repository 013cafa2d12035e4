"""`python scripts/chaos`, and the processes that it starts."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.path.append(str(Path(__file__).resolve().parent.parent.parent))  # where tests.servers is

from chaos.cli import app

app()
