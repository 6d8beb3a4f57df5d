# SPDX-License-Identifier: Apache-2.0
"""Features of images by pre-trained networks, and classifiers on them."""
