# SPDX-License-Identifier: Apache-2.0
"""A sweep: the request, its plan, and the processes that run its trials."""
