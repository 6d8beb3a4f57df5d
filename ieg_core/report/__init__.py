# SPDX-License-Identifier: Apache-2.0
"""What a sweep found: for programs, for the terminal and for people."""
