"""The log lines of many processes in one log, and none of them lost."""

import logging
import logging.config
import os

from eventlog import blocking

CONFIG = {
    "version": 1,
    "handlers": {
        "lines": {
            "class": "eventlog.logging_handler.Handler",
            "path": "lines",
            "max_bytes": 100_000_000,  # then the oldest lines go
        }
    },
    "root": {"handlers": ["lines"], "level": "INFO"},
}


def main():
    logging.config.dictConfig(CONFIG)
    child = os.fork()  # or multiprocessing, gunicorn --preload, ...
    logger = logging.getLogger("shop.parent" if child else "shop.child")
    logger.info("%d pens are sold", 3, extra={"product": "pen"})
    if child:
        os.waitpid(child, 0)
        with blocking.open("lines") as log:
            for line in log.read(-2):
                print(line.timestamp, line.headers["level"], line.key, line.event["message"])


if __name__ == "__main__":
    main()
