# SPDX-License-Identifier: Apache-2.0
"""Base images by random access, label corruption, and label sets."""
