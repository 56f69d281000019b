# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs in a network namespace of a lab root: watches all frames there, on every device.

Says "watching", and for each line it is told the stations that have sent frames so far, as JSON.
"""

import json
import select
import socket
import sys

ETH_P_ALL = 0x0003

stations = set()
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    while True:
        readable, _, _ = select.select([sock, sys.stdin], [], [])
        if sock in readable:
            stations.add(sock.recv(64)[6:12].hex(":"))
        elif not sys.stdin.readline():
            break
        else:
            sys.stdout.write(json.dumps(sorted(stations)) + "\n")
            sys.stdout.flush()
