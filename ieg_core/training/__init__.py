# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of one trial: the step, the loop, checkpoints, export."""
