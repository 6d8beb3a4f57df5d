# SPDX-License-Identifier: Apache-2.0
"""The results root: where its files are and what each of them holds."""
