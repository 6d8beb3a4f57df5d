# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of one cell: the step, the loop, checkpoints, export."""
