# SPDX-License-Identifier: Apache-2.0
"""Which labels look wrong, from what a method said of its examples."""
