"""TLS between hives and their NATS servers. A hive's key certifies the servers it runs, so no certificate is copied.

A server presents a certificate signed by the key of the hive that runs it. A client makes a trust anchor for each key
it knows: its own and its peers'. Whoever may be a peer may run a server for it. Servers of a cluster check each other
in the same way.
"""

import datetime
import ipaddress
import os
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hive.swarm.keys import HiveKey, PeerKey

VALID_DAYS: Final = 3_650
CLOCK_SKEW_DAYS: Final = 2
"""A certificate is valid from before now: hosts' clocks differ."""


def client_context(keys: list[PeerKey]) -> ssl.SSLContext:
    """Accepts a server that one of these keys certified, under whatever host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=anchors(keys))
    return context


def anchors(keys: list[PeerKey]) -> str:
    """A trust anchor for each key, as PEM."""
    made = []
    for key in keys:
        # Neither OpenSSL nor Go checks the signature of a trust anchor, so any key can sign it.
        anchor = _certificate(_name(key.text), _name(key.text), key.public, Ed25519PrivateKey.generate(), ca=True)
        made.append(anchor.public_bytes(Encoding.PEM).decode())
    return "".join(made)


def public_context() -> ssl.SSLContext:
    """For `tls://` addresses: the host's certificate authorities, with the host name checked."""
    return ssl.create_default_context()


def write_server_certificate(key: HiveKey, folder: Path, hosts: list[str]) -> tuple[Path, Path]:
    """A new certificate and its private key, as files for a server; replaces those there.

    `hosts`: names and addresses by which other servers reach this one. Hives do not check them.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    issuer = _name(key.public)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hive NATS server")])
    certificate = _certificate(subject, issuer, private.public_key(), key.private, hosts, ca=False)
    cert_file, key_file = folder / "server-cert.pem", folder / "server-key.pem"
    _write(cert_file, certificate.public_bytes(Encoding.PEM))
    _write(key_file, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return cert_file, key_file


def _name(public: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, public)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: Ed25519PublicKey | ec.EllipticCurvePublicKey,
    signer: Ed25519PrivateKey,
    hosts: list[str] | None = None,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=CLOCK_SKEW_DAYS))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(one) for one in hosts]), critical=False)
    return builder.sign(signer, None)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(data)
