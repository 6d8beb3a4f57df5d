# SPDX-License-Identifier: Apache-2.0
"""The settings of every experiment, and published figures."""
