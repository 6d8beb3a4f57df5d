# SPDX-License-Identifier: Apache-2.0
"""Last step of a sweep: fail the run if something was wrong, now that the report is written."""

from components import component


@component
def verdict(failures: str) -> str:
    """Fails if a trial did not finish or a result was not reproduced.

    Args:
      failures: Which trials did not finish and what was not reproduced; "" if all is well.

    Returns:
      "every trial finished".

    Raises:
      RuntimeError: Something was wrong.
    """
    if failures:
        raise RuntimeError(failures)
    return "every trial finished"
