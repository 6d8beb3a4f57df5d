# SPDX-License-Identifier: Apache-2.0
"""Recurring runs: their schedules, cost and state on a cluster."""
