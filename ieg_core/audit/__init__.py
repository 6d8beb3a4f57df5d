# SPDX-License-Identifier: Apache-2.0
"""Which labels look wrong, from what a method recorded about its examples."""
