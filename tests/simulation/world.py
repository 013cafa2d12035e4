"""One simulated machine: a writer, its clients, time and faults, all of it from one seed.

Whatever could happen next is an action; a step takes one of them by chance. After the last step of
turmoil nothing new is begun and nothing fails any more, until there is nothing left to do.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from typing import Any, NamedTuple

from eventlog.config import Retention
from eventlog.errors import LogDeleted
from eventlog.local.groups.stored import read_dead_letters
from eventlog.local.storage.reading.ranges import read_range
from eventlog.local.storage.reading.reader import LogReader
from eventlog.local.wire.connection import Connection
from eventlog.local.wire.table import Role
from eventlog.testing import open_storage
from tests.simulation.checker import HistoryChecker
from tests.simulation.clients import Client, Producer, Subscriber, Ways
from tests.simulation.group_checker import RESULT
from tests.simulation.history import Entry, Violation
from tests.simulation.members import GROUP, Member
from tests.simulation.pool import Pool
from tests.simulation.writer import Action, Link, Writer

MEMORY = "/dev/shm"
SEGMENT_BYTES = 4096
REST_STEPS_MAX = 20_000
SECOND = 10**9
FAULTS = {"killed": "writers killed", "left": "writers ended", "cut_off": "members cut off"}
"""How those are counted that are entries of a history."""


class Plan(NamedTuple):
    """What kind of history a seed is."""

    steps: int
    fault_share: float
    producers: int
    subscribers: int
    members: int
    ordering: str
    max_deliveries: int
    options: dict[str, Any]
    has_conditions: bool = False
    has_due_times: bool = False
    dies_before_records: bool = False
    """Writers die when a batch of results is stored, and its record is not."""

    @classmethod
    def of(cls, rng: random.Random) -> Plan:
        """One by chance."""
        options: dict[str, Any] = {
            "segment_bytes": SEGMENT_BYTES,
            "durability": rng.choice(["memory", "memory", "memory", "disk", "sync"]),
        }
        members = rng.choice([0, 1, 2, 2, 3])
        if rng.random() < (0.3 if members else 0.6):
            keep = rng.random() < (0.8 if members else 0.5)
            options["retention"] = Retention(max_bytes=2 * SEGMENT_BYTES, keep_unacked=keep)
            options["on_full"] = rng.choice(["wait", "error"])
        return cls(
            steps=rng.choice([60, 120, 240, 480]),
            fault_share=rng.choice([0.0, 0.02, 0.05, 0.1]),
            producers=rng.choice([1, 2, 3]),
            subscribers=rng.choice([1, 1, 2]),
            members=members,
            ordering=rng.choice(["", "key"]),
            max_deliveries=rng.choice([1, 1, 2, 3]),
            options=options,
        )


class Result(NamedTuple):
    """A history, and what is wrong with it."""

    seed: int
    plan: Plan
    history: list[Entry]
    violations: list[Violation]
    counts: Counter[str]


class World:
    """See the module."""

    def __init__(self, seed: int, directory: str, plan: Plan | None = None) -> None:
        self.rng = random.Random(seed)
        # From a generator of its own: the histories of all other seeds stay what they were.
        has_conditions = random.Random(f"{seed} has conditions").random() < 0.4
        self._due_rng = random.Random(f"{seed} has due times")
        has_due_times = self._due_rng.random() < 0.3
        deaths = random.Random(f"{seed} dies before it notes results")
        dies_before_records = deaths.random() < 0.2
        self.plan = plan or Plan.of(self.rng)._replace(
            has_conditions=has_conditions,
            has_due_times=has_due_times,
            dies_before_records=dies_before_records,
        )
        self.directory = directory
        self.history: list[Entry] = []
        self.counts: Counter[str] = Counter()
        self.checker = HistoryChecker()
        self.step = 0
        self.now_ns = 0
        self.wall_offset_ns = 0
        self.latest_ns = self.wall_ns()
        """What the wall clock has said at most."""
        self.writer = Writer(
            directory,
            self.rng,
            self.plan.options,
            self.note,
            lambda: self.now_ns,
            self.wall_ns,
        )
        if self.plan.dies_before_records:
            self.writer.deaths = deaths
        self.ways = Ways(directory, self.rng, self.note, self.open_link)
        self.ways.has_conditions = self.plan.has_conditions
        if self.plan.has_due_times:
            self.ways.next_due_ns = self._next_due_ns
        if "retention" in self.plan.options:
            self.ways.paddings = (300, 900)
        self.clients: list[Client] = []
        self._names: Counter[str] = Counter()

    def wall_ns(self) -> int:
        """What the wall clock says."""
        return 10**18 + self.now_ns + self.wall_offset_ns

    def _next_due_ns(self) -> int:
        """When the next event that is appended is due; 0: at once, as most are."""
        if self._due_rng.random() < 0.7:
            return 0
        self.counts["due times"] += 1
        return self.wall_ns() + self._due_rng.choice([SECOND // 1000, SECOND // 10, 3 * SECOND])

    def note(self, who: str, what: str, **fields: Any) -> None:
        """Put an entry into the history, and judge it."""
        entry = Entry(self.step, who, what, fields)
        self.history.append(entry)
        self.checker.note(entry)
        # A pipe that a child holds may still have what its member said before it was dismissed.
        if what == "handling" and self.ways.due.get(fields["value"], 0) > self.latest_ns:
            self._blame("early", f"event {fields['seq_no']} was begun before it was due")
        if what == "protocol_error" and any(one.name == fields["of"] for one in self.clients):
            self._blame("protocol error", f"{fields['of']}: {fields['error']}")

    def open_link(self, owner: str) -> Link | None:
        """See `line.OpenLink`."""
        if not self.writer.is_up and not self.writer.start():
            return None
        link = Link(owner)
        self.writer.links[link] = Connection(Role.WRITER, self.writer.log.options.frame_bytes_max)
        return link

    @property
    def violations(self) -> list[Violation]:
        """What was found until now."""
        return self.checker.violations

    # --- clients -----------------------------------------------------------------------------

    def populate(self) -> None:
        """The clients that there are at first."""
        plan = self.plan
        self.note("log", "options", on_full=plan.options.get("on_full", "wait"))
        while not self.writer.is_up:
            self.writer.start()
        for _ in range(plan.producers):
            self._add("producer")
        for number in range(plan.subscribers):
            self._add(f"consumer-{number}")
        if plan.members:
            self.note("group", "group", ordering=plan.ordering, max_deliveries=plan.max_deliveries)
            self._add("pool")

    def _add(self, kind: str) -> None:
        self._names[kind] += 1
        name = f"{kind}.{self._names[kind]}"
        plan = self.plan
        client: Client
        if kind == "producer":
            client = Producer(name, self.ways)
        elif kind == "pool":
            client = Pool(name, self.ways, plan.ordering, plan.max_deliveries)
        elif kind == "member":
            pid = 1000 + self._names[kind]
            self.writer.processes.add(pid)
            client = Member(name, self.ways, pid, plan.ordering, plan.max_deliveries)
        else:
            client = Subscriber(kind, self.ways)
        self.clients.append(client)

    def _replace(self, client: Client) -> None:
        """A client has died, and another one takes its place; members are replaced later."""
        self.clients.remove(client)
        if isinstance(client, Member):
            self.writer.processes.discard(client.pid)
            for pool in self.clients:
                if isinstance(pool, Pool):
                    pool.ended.append(client.membership.member_id)
        else:
            self._add(client.name.partition(".")[0])

    def _members_wanted(self) -> bool:
        if not any(isinstance(one, Pool) and one.is_ready for one in self.clients):
            return False
        return self._members() < self.plan.members

    def _members(self) -> int:
        return sum(isinstance(one, Member) for one in self.clients)

    # --- steps -------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole history; stops at the first violation."""
        self.populate()
        for _ in range(self.plan.steps):
            self.take_step()
            if self.violations:
                return
        self._settle()
        if not self.violations:
            self._tell_the_end()
        if not self.violations and self.rng.random() < 0.2:
            self.remake()

    def take_step(self) -> bool:
        """Do one of the things that can be done; false if there is none."""
        self.step += 1
        if not self.ways.is_settling and self.rng.random() < self.plan.fault_share:
            self._fail()
            return True
        actors = [self._own_actions, self.writer.actions, *(one.actions for one in self.clients)]
        self.rng.shuffle(actors)
        for actor in actors:
            actions = actor()
            if actions:
                was_up = self.writer.is_up
                self.rng.choice(actions)()
                self._replace_left()
                if was_up and not self.writer.is_up:
                    self._maybe_kill_a_member()
                return True
        return False

    def _maybe_kill_a_member(self) -> None:
        """What kills a writer in the middle of a call may kill others too: who has the memory?"""
        members = [one for one in self.clients if isinstance(one, Member)]
        if members and self.rng.random() < 0.4:
            self.kill(self.rng.choice(members))

    def _replace_left(self) -> None:
        while self.ways.left:
            name = self.ways.left.pop()
            self._replace(next(one for one in self.clients if one.name == name))

    def _own_actions(self) -> list[Action]:
        if self._members_wanted():
            return [lambda: self._add("member")]
        if self.ways.held and self.rng.random() < 0.1:
            return [lambda: self.ways.held.pop().hang_up(self.rng)]
        if self.writer.next_due() is not None or not self.writer.is_up:
            return [self._let_time_pass]
        if self.ways.held:
            return [lambda: self.ways.held.pop().hang_up(self.rng)]
        return []

    def _let_time_pass(self) -> None:
        due_ns = self.writer.next_due()
        self.now_ns += self.rng.choice([SECOND // 1000, SECOND // 10])
        if due_ns is not None and self.rng.random() < 0.5:
            self.now_ns = max(self.now_ns, due_ns)
        self.latest_ns = max(self.latest_ns, self.wall_ns())
        self.writer.resume()

    def _fail(self) -> None:
        kind = self.rng.choice(["writer", "pipe", "client", "member", "member", "clock"])
        if kind == "clock":
            self._jump()
        elif kind == "writer" and self.writer.is_up:
            self.rng.choice([self.writer.kill, self.writer.doom, self.writer.leave])()
        elif kind == "pipe" and self.writer.links:
            self.break_pipe(self.rng.choice(list(self.writer.links)))
        else:
            wanted = [one for one in self.clients if isinstance(one, Member) == (kind == "member")]
            at_work = [one for one in wanted if isinstance(one, Member) and one.is_running]
            if wanted:
                self.kill(self.rng.choice(at_work or wanted))

    def _jump(self) -> None:
        """Somebody sets the machine's clock: no event is deleted by that, and no backoff ends.

        Not by much where events are due: they would be so far off that the history has no end.
        """
        self.counts["clock jumps"] += 1
        far = 4 * SECOND if self.plan.has_due_times else 10**5 * SECOND
        self.wall_offset_ns = self.rng.choice([-1, 1]) * self.rng.choice([SECOND, far])
        self.latest_ns = max(self.latest_ns, self.wall_ns())

    def kill(self, client: Client) -> None:
        """A client's process dies."""
        self.counts[f"{type(client).__name__.lower()}s killed"] += 1
        self.ways.has_forked = self.rng.random() < 0.2
        self.counts["pipes held by children"] += self.ways.has_forked
        client.die()
        self.ways.has_forked = False
        self._replace(client)

    def break_pipe(self, link: Link) -> None:
        """The writer drops a client that lives."""
        self.counts["pipes broken"] += 1
        self.note("writer", "dropped", of=link.owner)
        leases = self.writer.leases_of(link)
        if leases is not None:
            self.note(link.owner, "cut_off", leases=leases)
        self.writer.drop(link)

    # --- the end -----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Let everything come to rest."""
        self.ways.is_settling = True
        self.writer.spare()
        until = self.step + REST_STEPS_MAX
        while self.take_step():
            if self.violations:
                return
            if self.step > until:
                self._blame("no rest", "there is always something left to do")
                return

    def _blame(self, kind: str, text: str) -> None:
        self.checker.blame(Violation(kind, text, self.step))

    def _tell_the_end(self) -> None:
        while not self.writer.is_up:
            self.writer.start()
        log = LogReader(self.directory)
        try:
            events: dict[int, str] = {}
            keys: dict[int, str | None] = {}
            key_of: dict[str, str | None] = {}
            for envelopes in read_range(log, 0, None):
                for envelope in envelopes:
                    assert envelope.seq_no is not None
                    value = envelope.event[0]
                    events[envelope.seq_no] = value
                    key_of[value] = envelope.key
                    keys[envelope.seq_no] = None if value.startswith(RESULT) else envelope.key
            self.note("end", "log", first=log.first_available, events=events)
            self.note("end", "keys", keys=keys)
            self.note("end", "key_of", keys=self.ways.keys | key_of)
            letters = read_dead_letters(self.directory, GROUP)
            values = {one.seq_no: None if one.event is None else one.event[0] for one in letters}
            self.note("end", "letters", values=values)
            self.note("end", "drained", at=log.position_of(GROUP))
            self._check_readers(log)
        finally:
            log.close()

    def remake(self) -> None:
        """Somebody deletes the directory and makes another log in its place: nobody writes there.

        Producers append once more, and members go on; what only looks is not asked.
        """
        self.counts["logs remade"] += 1
        self.ways.has_conditions = False  # nobody reads the log that is gone
        shutil.move(self.directory, f"{self.directory}.deleted")
        open_storage(self.directory, segment_bytes=SEGMENT_BYTES).close()
        users = [one for one in self.clients if isinstance(one, Producer | Member)]
        for client in users:
            if isinstance(client, Producer):
                client.append()
        for _ in range(REST_STEPS_MAX):
            actors = [self.writer, *users]
            actions = [action for actor in actors for action in actor.actions()]
            if not actions:
                break
            self.step += 1
            self.rng.choice(actions)()
        for client in users:
            if not isinstance(client.told, LogDeleted):
                text = f"{client.name} was told {client.told!r}, and the log is another one"
                self._blame("another log", text)
        log = LogReader(self.directory)
        if log.last_seq_no:
            self._blame("another log", f"{log.last_seq_no} events were stored in the new log")
        log.close()

    def _check_readers(self, log: LogReader) -> None:
        for client in self.clients:
            if isinstance(client, Subscriber):
                at, state = log.position_and_state(client.name)
                self.note(client.name, "position", consumer=client.name, at=at, state=state)
                if client.next_seq_no <= log.last_seq_no:
                    text = f"{client.name} sleeps before {client.next_seq_no} of {log.last_seq_no}"
                    self._blame("lost wake-up", text)

    def close(self) -> None:
        """Give everything back."""
        for client in self.clients:
            client.leave()
        self.writer.close()


def simulate(seed: int) -> Result:
    """The history of a seed, judged."""
    base = MEMORY if os.access(MEMORY, os.W_OK) else tempfile.gettempdir()
    directory = tempfile.mkdtemp(prefix="eventlog-simulation-", dir=base)
    world = World(seed, os.path.join(directory, "log"))
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what retention deletes is told each time
    try:
        try:
            world.run()
        finally:
            world.close()
    except Exception as error:
        tail = "\n".join(map(str, world.history[-30:]))
        error.add_note(f"seed {seed}, {world.plan}\n{tail}")
        raise
    finally:
        logging.disable(disabled)
        shutil.rmtree(directory)
    for what, name in FAULTS.items():
        world.counts[name] = sum(one.what == what for one in world.history)
    world.counts["steps"] = world.step
    world.counts["histories"] = 1
    return Result(seed, world.plan, world.history, world.violations, world.counts)
