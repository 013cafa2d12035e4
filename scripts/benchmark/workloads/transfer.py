"""One run from one producer to its consumers, which `throughput` and `fan_out` have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmark import measures
from benchmark.processes import Crew, Link, Member
from benchmark.settings import Settings
from benchmark.systems.base import Place, Received, Sent, System

MakeSystem = Callable[[Place], System]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What one run measured; `sending` is from the first send until the last event left."""

    count: int
    sending_s: float
    delivering_s: float
    """From the first send until the last consumer has the last event."""
    producer_cpu_s: float
    consumers_cpu_s: float
    """Of all consumers, until each of them had the last event."""
    own_cpu_s: float
    """Of the system's own processes, such as the log's writer, until the end."""
    others_cpu_while_sending_s: float
    """Of everybody but the producer: the consumers, the system's own processes, and whatever else
    ran on the machine while the producer was sending."""
    foreign_share: float
    """Of the machine's processors, what was used by processes that are no part of this run."""


def transfer(make: MakeSystem, count: int, consumers: int, settings: Settings) -> Transfer:
    """Send `count` events to each of so many consumers, through a system made for this run.

    Raises:
        RunFailed: one of the processes did.
    """
    with settings.new_directory() as directory:
        place = Place(directory=directory, consumers=consumers, durability=settings.durability)
        system = make(place)
        with system.opened() as own_pids, Crew() as crew:
            return _run(system, crew, own_pids, count)


def _run(system: System, crew: Crew, own_pids: list[int], count: int) -> Transfer:
    producer, consumers = _start(system, crew, count)
    other_pids = [*own_pids, *(member.pid for member in consumers)]
    own_before, others_before = measures.cpu_s(own_pids), measures.cpu_s(other_pids)
    machine_before, start_s = measures.machine_cpu_s(), time.monotonic()
    crew.tell(producer)
    sent: Sent = crew.hear(producer)[0]
    others_cpu_s = measures.machine_cpu_s() - machine_before - sent.cpu_s
    received: list[Received] = crew.hear(*consumers)
    machine_cpu_s, wall_s = measures.machine_cpu_s() - machine_before, time.monotonic() - start_s
    own_cpu_s = measures.cpu_s(own_pids) - own_before
    ours_s = measures.cpu_s(other_pids) - others_before + sent.cpu_s
    crew.tell(*consumers)
    last_ns = max(sent.end_ns, *(one.end_ns for one in received)) if received else sent.end_ns
    return Transfer(
        count=count,
        sending_s=(sent.end_ns - sent.start_ns) / 1e9,
        delivering_s=(last_ns - sent.start_ns) / 1e9,
        producer_cpu_s=sent.cpu_s,
        consumers_cpu_s=sum(one.cpu_s for one in received),
        own_cpu_s=own_cpu_s,
        others_cpu_while_sending_s=others_cpu_s,
        foreign_share=max(machine_cpu_s - ours_s, 0.0) / (measures.cores() * wall_s),
    )


def _start(system: System, crew: Crew, count: int) -> tuple[Member, list[Member]]:
    """The producer and the consumers, all of them open and waiting."""
    producer = crew.start("producer", partial(_produce, system, count))
    consumers = [
        crew.start(f"consumer {index}", partial(_consume, system, count, index))
        for index in range(system.place.consumers)
    ]
    crew.hear(*consumers)
    crew.tell(producer)
    crew.hear(producer)
    return producer, consumers


def _produce(system: System, count: int, link: Link) -> None:
    system.run_producer(link, count)


def _consume(system: System, count: int, index: int, link: Link) -> None:
    system.run_consumer(link, count, index)
