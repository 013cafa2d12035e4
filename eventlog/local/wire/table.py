"""All messages, and who may say which of them in which state of a connection. Pure.

======  ==============  ================  ==============
number  from a client   answered by       and
======  ==============  ================  ==============
1       Hello           Welcome
2       Append          Appended
3       Ack             Done
4       Seek            Done
5       Forget          Done
6       Park            Wake              waits
7       Status          StatusReport
8       OpenGroup       Done
9       Join            Joined
10      Lease           Leased            waits
11      Settle          Done
12      Nack            Done
13      Release         Done
14      Bury            Done
15      Leave           Done
16      AwaitCondemned  Condemned         waits
17      AwaitDrained    Done              waits
18      RetryDead       Counted
19      DropDead        Counted
20      Dismiss         Done
21      Stage           Staged            once
22      AppendStaged    Appended          once
23      AwaitSynced     Wake              waits
24      StandDown       Done              once
25      Excuse          Done
26      FailDelivery    Done
27      Statistics      StatisticsReport  may be unknown
28      AppendIf        Appended          may be unknown
30      AckState        Done              may be unknown
32      Configure       Done              may be unknown
33      Trim            TrimmedTo         may be unknown
34      RetryCorrected  Counted           may be unknown
======  ==============  ================  ==============

======  ================
number  from the writer
======  ================
65      Welcome
66      Appended
67      Done
68      Wake
69      StatusReport
70      Failed
71      Joined
72      Leased
73      Revoke
74      Condemned
75      Counted
76      Staged
77      Passed
78      StatisticsReport
83      TrimmedTo
======  ================

`waits`: the answer comes when something happens. `once`: it is not said again when the pipe breaks
before the answer. `may be unknown`: a writer of an earlier release hangs up on it. Instead of each
answer `Failed` may come; `Revoke` and `Passed` are said unasked.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from eventlog.local.wire import group_messages, messages
from eventlog.local.wire.messages import Failed, FromClient, FromWriter, Hello, Message, Welcome


class Role(enum.Enum):
    """One end of a pipe."""

    CLIENT = "client"
    WRITER = "writer"


class State(enum.Enum):
    """How far the conversation is; nobody says anything more once it is closed."""

    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


def _number(kind: Any) -> int | None:
    """The number of a declared message; `None` for anything else, and for what is only a base."""
    is_message = isinstance(kind, type) and issubclass(kind, Message)
    return kind.__struct_config__.tag if is_message else None


_DECLARED: Final = [
    (number, kind)
    for module in (messages, group_messages)
    for kind in vars(module).values()
    if (number := _number(kind)) is not None
]
MESSAGES: Final[dict[int, type[Message]]] = dict(sorted(_DECLARED, key=lambda one: one[0]))
"""Each message by its number."""


def _said_by(base: type[Message], *left_out: type[Message]) -> frozenset[type[Message]]:
    kinds = (kind for kind in MESSAGES.values() if issubclass(kind, base))
    return frozenset(kinds) - frozenset(left_out)


MAY_SAY: Final[dict[tuple[Role, State], frozenset[type[Message]]]] = {
    (Role.CLIENT, State.OPENING): frozenset({Hello}),
    (Role.CLIENT, State.OPEN): _said_by(FromClient, Hello),
    (Role.WRITER, State.OPENING): frozenset({Welcome, Failed}),
    (Role.WRITER, State.OPEN): _said_by(FromWriter, Welcome),
}
