# SPDX-License-Identifier: Apache-2.0
"""What a sweep found, for programs, for the terminal and for people."""

from ieg_core.report.cells import load_sweep
from ieg_core.report.summary import Headline, headline, results_table
from ieg_core.report.write import write_joined, write_report

__all__ = ["Headline", "headline", "load_sweep", "results_table", "write_joined", "write_report"]
