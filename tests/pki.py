"""A certificate authority for tests, and PEM files of what it signs."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)
_PEM = serialization.Encoding.PEM


class Authority:
    """``ca``: its own certificate. Files have a certificate and its key."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._count = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        own = self._signed(self._name, self._key, [], DAY, ca=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(own.public_bytes(_PEM))

    def server(self) -> Path:
        """For 127.0.0.1."""
        return self._issue([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))], DAY)

    def client(self, *uris: str, life: datetime.timedelta = DAY) -> Path:
        """For a client that these URIs name."""
        return self._issue([x509.UniformResourceIdentifier(uri) for uri in uris], life)

    def encrypted(self) -> bytes:
        """For a server, with a key that has a password."""
        signed = self.server().read_bytes().partition(b"-----BEGIN PRIVATE")[0]
        how = serialization.BestAvailableEncryption(b"secret")
        return signed + self._key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, how)

    def _issue(self, names: list[x509.GeneralName], life: datetime.timedelta) -> Path:
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"number {self._count}")])
        signed = self._signed(subject, key, names, life)
        path = self._folder / f"{self._count}.pem"
        path.write_bytes(
            signed.public_bytes(_PEM)
            + key.private_bytes(
                _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        life: datetime.timedelta,
        *,
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())
