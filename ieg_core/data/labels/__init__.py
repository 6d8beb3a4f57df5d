# SPDX-License-Identifier: Apache-2.0
"""Labels that are given rather than drawn."""
