# SPDX-License-Identifier: GPL-2.0-or-later
"""A root's agent, multirootd: its gRPC servers and the parts behind their services.

| module | job |
|---|---|
| daemon | the program: options, logging, signals |
| agent | answers the root that has started this one, then has the parts imported; imports little itself |
| coming_up | says where an agent stands that takes long |
| parts | starts the parts, offers their services, stops them |
| context | what every part knows of the root it runs in |
| guests | the VMs of this root, and the taker of handoffs |
| handoffs | one VM to another root, or back |
| updates | the coordinator of this root's updates, and the adoption of what an earlier root leaves |
"""
