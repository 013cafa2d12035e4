"""A consumer that begins with what comes from now on, and never misses an event after that."""

from eventlog import SeekPosition, blocking


def main():
    with blocking.open("orders") as log:
        if "alerts" not in {consumer.name for consumer in log.consumers()}:
            log.seek("alerts", SeekPosition.LATEST)  # at the very first start only
        with log.subscribe("alerts") as stream:  # from its position on, also after a restart
            for envelope in stream:
                print(envelope.seq_no, envelope.event, flush=True)
                stream.ack(envelope)


if __name__ == "__main__":
    main()
