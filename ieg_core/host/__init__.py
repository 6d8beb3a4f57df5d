# SPDX-License-Identifier: Apache-2.0
"""This machine: its resources, its processes, its files."""
