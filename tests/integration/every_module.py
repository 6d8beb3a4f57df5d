# SPDX-License-Identifier: Apache-2.0
"""Run by test_architecture.py in a process of its own: imports modules, lists what that loads.

python every_module.py OUT.npz MODULE...
"""

import importlib
import sys

import numpy as np

for name in sys.argv[2:]:
    importlib.import_module(name)
np.savez(sys.argv[1], packages=sorted({name.partition(".")[0] for name in sys.modules}))
