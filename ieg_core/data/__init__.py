# SPDX-License-Identifier: Apache-2.0
"""Random access to base images, label corruption, and label sets."""
