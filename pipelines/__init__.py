# SPDX-License-Identifier: Apache-2.0
"""The pipelines: what runs after what, where, how often. Run as `python -m pipelines`."""
