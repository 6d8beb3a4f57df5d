# SPDX-License-Identifier: Apache-2.0
"""Random draws: pure functions of seed and step, computed on the host."""
