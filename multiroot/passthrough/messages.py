# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices as protocol messages, and back."""

from __future__ import annotations

from dataclasses import asdict

from multiroot.arena.allocator import Extent
from multiroot.device.passthrough import Bar, Comparison, Function, Translation
from multiroot.errors import BadRequestError
from multiroot.passthrough.devices import DeviceState
from multiroot.rpc.v1 import device_pb2, vm_pb2

_BARS = 6


def translation_to_proto(translation: Translation) -> device_pb2.DeviceTranslation:
    return device_pb2.DeviceTranslation(**asdict(translation))


def translation_from_proto(message: device_pb2.DeviceTranslation) -> Translation:
    return Translation(
        owner=message.owner,
        did=message.did,
        context=message.context,
        table=message.table,
        leaves=message.leaves,
        crc=message.crc,
        remapped=message.remapped,
    )


def state_to_proto(state: DeviceState) -> device_pb2.DeviceState:
    function = state.function
    return device_pb2.DeviceState(
        version=state.version,
        rid=function.rid,
        config=function.config,
        virtual=function.virtual,
        vendor=function.vendor,
        device=function.device,
        subsystem_vendor=function.subsystem_vendor,
        subsystem_device=function.subsystem_device,
        class_revision=function.class_revision,
        bars=[device_pb2.PciBar(**asdict(bar)) for bar in function.bars],
        tables=vm_pb2.Extent(offset=state.tables.offset, size=state.tables.size),
        tables_address=state.tables_address,
        capabilities=state.capabilities,
        translation=translation_to_proto(state.translation),
    )


def state_from_proto(message: device_pb2.DeviceState) -> DeviceState:
    """The state as sent; raises BadRequestError if it has not six BARs."""
    if len(message.bars) != _BARS:
        raise BadRequestError(f"a device with {len(message.bars)} BARs")
    return DeviceState(
        version=message.version,
        function=Function(
            rid=message.rid,
            config=message.config,
            virtual=message.virtual,
            vendor=message.vendor,
            device=message.device,
            subsystem_vendor=message.subsystem_vendor,
            subsystem_device=message.subsystem_device,
            class_revision=message.class_revision,
            bars=tuple(Bar(bar.start, bar.size, bar.bits) for bar in message.bars),
        ),
        tables=Extent(message.tables.offset, message.tables.size),
        tables_address=message.tables_address,
        capabilities=message.capabilities,
        translation=translation_from_proto(message.translation),
    )


def moved_to_proto(before: Translation, after: Translation, seen: Comparison) -> device_pb2.DeviceMoved:
    return device_pb2.DeviceMoved(
        before=translation_to_proto(before),
        after=translation_to_proto(after),
        same=seen.same,
        elsewhere=seen.elsewhere,
        verify_ns=seen.verify_ns,
        switch_ns=seen.switch_ns,
    )
