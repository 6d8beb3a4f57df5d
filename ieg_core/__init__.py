# SPDX-License-Identifier: Apache-2.0
"""Training image classifiers on badly labelled data: data, methods, training, reports."""

__version__ = "0.1.0"
