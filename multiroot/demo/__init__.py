# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job shown end to end in a lab machine, with the proof that it happened."""
