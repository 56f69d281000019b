# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a Linux kernel from its memory alone, and the file format in which debuggers take it.

Pure: memory in, data out. The memory is another kernel's, which may write anything into it: whatever is read
there is checked before it is used, and a loop over it ends.
"""
