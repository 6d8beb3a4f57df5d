# SPDX-License-Identifier: Apache-2.0
"""The local machine: resources, processes and files."""
