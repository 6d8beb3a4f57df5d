# SPDX-License-Identifier: Apache-2.0
"""The work of each KFP component."""
