"""The end of training that a person or a system asks for."""

import os
import signal
import threading

import keras

from cdc_keras.devices import distribution

AGREED_EVERY = 10  # steps


class StopOnSignal(keras.callbacks.Callback):
    """Ends training after the step under way on Ctrl-C or SIGTERM; a second Ctrl-C ends it at once.

    Use as a context manager around training. Outside the main thread, where Python allows no handlers of signals, it
    does nothing. Workers agree every `AGREED_EVERY` steps and at the end of an epoch, since none can take a step alone.

    Attributes:
        signalled: whether a signal has come to this worker.
        agreed: whether one had come to any worker by the end of the last epoch, or part of one.
    """

    def __init__(self):
        super().__init__()
        self.signalled = self.agreed = False
        self.handlers = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.handlers = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signalled = True
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nstopping after this step and saving; press Ctrl-C again to stop at once\n")

    def on_train_batch_end(self, batch, logs=None):
        if distribution.workers() == 1 or batch % AGREED_EVERY == 0:
            self.model.stop_training = self.signalled = distribution.on_any_worker(self.signalled)

    def on_epoch_end(self, epoch, logs=None):
        self.agreed = self.signalled = distribution.on_any_worker(self.signalled)
