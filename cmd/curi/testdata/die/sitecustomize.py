"""Kills a Python program at a chosen moment, without a line of its own.

DIE="EVENT TEXT N": at the N-th audit event of that name (open, os.rename, …)
whose first argument has TEXT in it.
"""

import os
import signal
import sys

if os.environ.get("DIE"):
    event, text, left = os.environ["DIE"].split()
    left = int(left)

    def hook(name, args):
        global left
        if name == event and text in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
