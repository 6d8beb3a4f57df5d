# SPDX-License-Identifier: Apache-2.0
"""Image features from pre-trained networks, and classifiers on them."""
