# SPDX-License-Identifier: Apache-2.0
"""The sweep on this machine, with kfp.local."""
