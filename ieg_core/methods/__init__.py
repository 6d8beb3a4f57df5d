# SPDX-License-Identifier: Apache-2.0
"""The methods, one paper per file."""
