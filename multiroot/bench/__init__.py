# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures what the project does beside what others do, in one lab machine and one run."""
