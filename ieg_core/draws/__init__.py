# SPDX-License-Identifier: Apache-2.0
"""Everything random: a pure function of seed and step, drawn on the host."""
