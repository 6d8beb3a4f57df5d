# SPDX-License-Identifier: Apache-2.0
"""Run by the tests in a process of its own: the worker of a short trial on the digits.

python short_run.py OUT.npz RESULTS
"""

import sys

import numpy as np

from ieg_core.sweep import worker
from ieg_core.sweep.plan import plan
from ieg_core.sweep.request import SweepRequest


def main(out: str, results: str) -> None:
    request = SweepRequest("digits_uniform_0.2", methods=("supervised",), steps=60, results=results)
    (trial,) = plan(request).trials
    assert worker.main(["train", trial, results, "data", "1", "1"]) == 0
    np.savez(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
