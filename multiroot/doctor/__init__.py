# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a root can do its work: checks that change nothing, each with how to mend what it finds."""
