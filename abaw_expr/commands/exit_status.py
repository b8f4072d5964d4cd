"""Exit statuses of all commands."""

import signal

OK = 0
FAULTS = 1
"""The command ran to its end and found faults."""
COULD_NOT_RUN = 2
INTERRUPTED = 130
SIGNALLED = 128
"""A signal ended the command in good order: this and the signal's number, as a shell has it."""
TERMINATED = SIGNALLED + signal.SIGTERM
