# SPDX-License-Identifier: Apache-2.0
"""The results of a sweep, for programs, for the terminal and for readers."""
