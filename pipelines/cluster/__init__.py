# SPDX-License-Identifier: Apache-2.0
"""The sweep on a cluster: connects to KFP, checks, estimates the cost, submits, follows."""
