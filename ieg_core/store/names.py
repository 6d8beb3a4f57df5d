# SPDX-License-Identifier: Apache-2.0
"""Names of folders, for `make` too, which reads them before anything is installed."""

DEFAULT_ROOT = "runs"
"""The results root, if no other is named."""
LABEL_SETS, TRIALS, SWEEPS = "label_sets", "trials", "sweeps"
"""Folders of a results root."""
