# SPDX-License-Identifier: Apache-2.0
"""Defines one training: data set, method, network, configuration."""
