# SPDX-License-Identifier: Apache-2.0
"""The settings of every experiment, one family of recipes per file, and published figures."""
