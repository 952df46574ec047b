"""Settings of the suite: one thread per process, so that tests do not slow down other work, and no GPU.

A machine with a GPU therefore runs the same tests. Processes that tests start inherit both settings.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"         # before torch is imported
os.environ["CUDA_VISIBLE_DEVICES"] = ""
