# SPDX-License-Identifier: Apache-2.0
"""User images, as files or arrays, as a base data set."""
