"""The tests use one thread, here and in the processes they start, so that they do not slow down beside other work."""

import os

os.environ["OMP_NUM_THREADS"] = "1"     # before torch is imported
