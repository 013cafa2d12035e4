"""Arrays through a pool: workers read frames where they lie in the log, and store new ones."""

import numpy as np

from eventlog import blocking
from workers.blocking import Pool


def normalise(frame):  # a read-only array that lies in the mapped log, uncopied
    return (frame - frame.mean()) / frame.std()


def main():
    with blocking.open("frames") as frames, blocking.open("normalised") as normalised:
        random = np.random.default_rng(7)
        frames.append_many([random.normal(n, 2.0, (120, 160)) for n in range(50)])
        options = {"type": np.ndarray, "output": normalised, "processes": 2}
        with Pool(frames, group="normalise", handler=normalise, **options) as pool:
            pool.drained()
        with normalised.subscribe("plot", type=np.ndarray, follow=False) as stream:
            for envelope in stream:
                frame = envelope.event
                print(envelope.cause.seq_no, frame.shape, frame.std().round(6))
                stream.ack(envelope)


if __name__ == "__main__":
    main()
