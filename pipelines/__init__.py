# SPDX-License-Identifier: Apache-2.0
"""The pipelines: the order, place and schedule of the steps. Run with `python -m pipelines`."""
