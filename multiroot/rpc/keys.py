# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agents of two roots prove themselves with to each other, by TLS in both directions.

Each end has a key and a certificate for it, and knows the certificate of the other end and no other. The root
that starts another makes all of them anew and gives the other its part (see `launch.given`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

_NAME = "multiroot"  # in every certificate, since TLS wants one; the key alone tells who somebody is
_FIRST_YEAR, _LAST_YEAR = 2000, 9999  # a root's clock may be wrong when it comes up
_KEY, _CERTIFICATE, _PEER = "key.pem", "certificate.pem", "peer.pem"


@dataclass(frozen=True)
class Keys:
    """One end's key and certificate, and the certificate of the other end; PEM."""

    key: bytes = field(repr=False)
    certificate: bytes
    peer: bytes

    def files(self) -> dict[str, bytes]:
        """By the names that `read` looks for."""
        return {_KEY: self.key, _CERTIFICATE: self.certificate, _PEER: self.peer}

    @classmethod
    def read(cls, folder: Path) -> Keys | None:
        """The keys in a folder, None when it holds none."""
        try:
            return cls(*((folder / name).read_bytes() for name in (_KEY, _CERTIFICATE, _PEER)))
        except FileNotFoundError:
            return None

    def write(self, folder: Path) -> None:
        """Keep them in a folder, in place of those that it holds. Nobody but its owner may read them."""
        partial = folder.with_suffix(".partial")
        for old in (partial, folder):
            shutil.rmtree(old, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        for name, data in self.files().items():
            descriptor = os.open(partial / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        partial.rename(folder)

    def server(self) -> grpc.ServerCredentials:
        """For a server that answers the other end and nobody else."""
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)], root_certificates=self.peer, require_client_auth=True
        )

    def channel(self, target: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.aio.Channel:
        """To the other end at `target`; nobody else can answer there."""
        credentials = grpc.ssl_channel_credentials(self.peer, self.key, self.certificate)
        named = (*options, ("grpc.ssl_target_name_override", _NAME))
        return grpc.aio.secure_channel(target, credentials, options=named)


def make_pair() -> tuple[Keys, Keys]:
    """New keys for two ends that know each other."""
    (key, certificate), (other_key, other_certificate) = _make_key(), _make_key()
    return Keys(key, certificate, other_certificate), Keys(other_key, other_certificate, certificate)


def _make_key() -> tuple[bytes, bytes]:
    """A key and a certificate that it has signed itself."""
    # Only a root that starts another needs these, and they are large.
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(_LAST_YEAR, 12, 31, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
