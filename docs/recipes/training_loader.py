"""Training data in a seeded random order, shared out among loader processes, and resumable."""

import random
from dataclasses import dataclass

from eventlog import blocking

BLOCK = 256  # events that are read together and shuffled among themselves


@dataclass
class Samples:  # for torch: class Samples(torch.utils.data.IterableDataset), with the same method
    path: str
    stop: int  # the samples are events 1 to before `stop`: the log may grow meanwhile
    seed: int = 0
    worker: int = 0  # which one of so many workers this is
    workers: int = 1
    epoch: int = 0
    done: int = 0  # with the epoch it is all that a checkpoint needs

    def __iter__(self):
        blocks = [range(n, min(n + BLOCK, self.stop)) for n in range(1, self.stop, BLOCK)]
        random.Random(f"{self.seed} {self.epoch}").shuffle(blocks)  # the same in each worker
        skipped = self.done
        with blocking.open(self.path, start_writer=False) as log:  # reading needs no writer
            for block in blocks[self.worker :: self.workers]:
                if skipped >= len(block):
                    skipped -= len(block)
                    continue
                events = [envelope.event for envelope in log.read(block.start, block.stop)]
                random.Random(f"{self.seed} {self.epoch} {block.start}").shuffle(events)
                for event in events[skipped:]:
                    self.done += 1
                    yield event
                skipped = 0
        self.epoch, self.done = self.epoch + 1, 0
