# SPDX-License-Identifier: Apache-2.0
"""The sweep on a cluster: connect to KFP, check, count the cost, submit, follow."""
