# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's agent, multirootd: who this root is, whether its peers live, and the services it offers."""
