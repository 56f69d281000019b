# SPDX-License-Identifier: GPL-2.0-or-later
"""gRPC plumbing: generated stubs (v1/), channels, and errors that cross the wire."""
