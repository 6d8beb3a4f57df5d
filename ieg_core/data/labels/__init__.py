# SPDX-License-Identifier: Apache-2.0
"""Given labels: from files, from annotators (CIFAR-N), or from Python."""
