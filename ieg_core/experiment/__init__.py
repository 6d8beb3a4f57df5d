# SPDX-License-Identifier: Apache-2.0
"""What one training is: data set, method, network, configuration."""
