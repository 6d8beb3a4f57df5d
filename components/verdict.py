# SPDX-License-Identifier: Apache-2.0
"""Last step of a sweep: fail the run if a cell failed, now that the report is written."""

from components import component


@component
def verdict(failures: str) -> str:
    """Fails if a cell did not finish.

    Args:
      failures: Which cells did not finish and why; "" if all did.

    Returns:
      "every cell finished".

    Raises:
      RuntimeError: A cell did not finish.
    """
    if failures:
        raise RuntimeError(f"cells did not finish: {failures}")
    return "every cell finished"
