"""A sink for structlog: each line is an event with all its values, and a key to read it by."""

from datetime import datetime

import msgspec
import structlog

from eventlog import blocking


class Sink:
    def __init__(self, log, name):
        self._log, self._name = log, name

    def info(self, **line):  # what the last processor gives
        self._log.append(line, key=self._name, headers={"level": line["level"]})

    debug = warning = error = critical = info


def storable(logger, name, line):  # what no event carries becomes text
    return msgspec.to_builtins(line, builtin_types=(datetime, bytes), enc_hook=repr)


def main():
    with blocking.open("lines") as log:
        structlog.configure(
            [structlog.processors.add_log_level, structlog.processors.dict_tracebacks, storable],
            logger_factory=lambda name="root": Sink(log, name),
        )
        logger = structlog.get_logger("shop")
        logger.info("sold", product="pen", pieces=3, to=object())
        for line in log.read(key="shop"):
            print(line.timestamp, line.event)


main()
