"""A handler that forks: its child ends where the handler ends in it, and is no second worker.

The child has the worker's pipes and pages. It must neither take the next event nor say anything in
the worker's name, however the handler ends in it: by `sys.exit`, an exception or `return`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

is_child = False
"""Whether this process was forked by a worker's handler or initializer."""


def watch() -> None:
    """Notice from now on that this process forks; for the worker, once."""
    os.register_at_fork(after_in_child=_become_child)


def _become_child() -> None:
    global is_child  # noqa: PLW0603 - a fork changes the process, so the process's state
    is_child = True
    # The worker's own signals would stop the worker, and its log records go to the pool.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger().handlers[:] = [logging.StreamHandler()]


def end(error: BaseException | None = None) -> NoReturn:
    """End the child as Python would have ended a program: 0, the code of `sys.exit`, or 1."""
    code = 0
    with suppress(BaseException):
        if isinstance(error, SystemExit):
            code = _code_of(error)
        elif error is not None:
            code = 1
            traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # closed, or a pipe that nobody reads
            stream.flush()
    os._exit(code)


def _code_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it; a child that it forked ends with it."""
    try:
        result = function(*arguments)
    except BaseException as error:
        if is_child:
            end(error)
        raise
    if is_child:
        end()
    return result
