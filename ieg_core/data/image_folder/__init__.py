# SPDX-License-Identifier: Apache-2.0
"""A folder of one's own images as a base data set."""
