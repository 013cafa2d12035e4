"""A sink for structlog: each line is an event with all its values, and a key to read it by."""

import structlog

from eventlog import blocking


class Sink:
    def __init__(self, log, name):
        self._log, self._name = log, name

    def msg(self, **line):  # what the last processor gives, as a dict
        self._log.append(line, key=self._name, headers={"level": line["level"]})

    debug = info = warning = error = critical = msg


def main():
    with blocking.open("lines") as log:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.dict_tracebacks,
            ],
            logger_factory=lambda name="root": Sink(log, name),
        )
        logger = structlog.get_logger("shop")
        logger.info("sold", product="pen", pieces=3)
        try:
            raise KeyError("ink")
        except KeyError:
            logger.exception("not sold", product="ink")
        for line in log.read(key="shop"):
            print(line.event)


if __name__ == "__main__":
    main()
