# SPDX-License-Identifier: Apache-2.0
"""Checks and measures the training steps on a GPU that is at hand for a short time."""
