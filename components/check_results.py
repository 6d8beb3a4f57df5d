# SPDX-License-Identifier: Apache-2.0
"""Last step of a sweep: fails the run if something is wrong, after the report is written."""

from components import component


@component
def check_results(failures: str) -> str:
    """Fails if a trial did not finish or a result was not reproduced.

    Args:
      failures: The trials that did not finish and the results not reproduced; "" if there are none.

    Returns:
      "every trial finished".

    Raises:
      RuntimeError: When `failures` is not empty.
    """
    if failures:
        raise RuntimeError(failures)
    return "every trial finished"
