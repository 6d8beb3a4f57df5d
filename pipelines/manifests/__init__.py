# SPDX-License-Identifier: Apache-2.0
"""What k8s/ holds, rendered and checked."""
