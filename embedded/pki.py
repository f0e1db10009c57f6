"""The cluster's certificates: one authority per home, kept as long as it is valid, and what it signed, renewed when due."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from embedded.home import LocalHome
from mistral_on_l4.files import write_whole

VALID = datetime.timedelta(days=5 * 365)
# A certificate that would expire while a demo runs is as bad as one that has.
RENEW_BEFORE = datetime.timedelta(days=30)
# Clocks of a laptop that slept, or of WSL2, run behind.
BACKDATED = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Leaf:
    """A certificate that the authority signs: for a server when it has names, for a client otherwise."""

    file: str
    common_name: str
    organization: str | None = None
    names: Sequence[str] = ()


def leaves(service_address: str) -> list[Leaf]:
    """All certificates of a cluster. `service_address` is the first of the service range, where pods find the API server."""
    kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    return [
        Leaf("apiserver", "kube-apiserver", names=("127.0.0.1", "localhost", *kubernetes, service_address)),
        Leaf("admin", "mistral-on-l4-admin", "system:masters"),
        Leaf("webhook", "kserve-webhook", names=("127.0.0.1", "localhost")),
        Leaf("kubelet", "mistral-on-l4-agent", names=("127.0.0.1", "localhost")),
        Leaf("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
    ]


def ensure_pki(home: LocalHome, service_address: str) -> bool:
    """Writes what is missing, damaged, about to expire or made for other names. True if anything was written."""
    made = _load(home, "ca") is None
    authority = _load(home, "ca") or _make_authority(home)
    for leaf in leaves(service_address):
        pair = _load(home, leaf.file)
        if (
            pair is None
            or pair[0].issuer != authority[0].subject
            or not _signed_by(pair[0], authority[0])
            or not _fits(pair[0], leaf)
        ):
            _sign(home, leaf, authority)
            made = True
    if not _service_account_key_is_whole(home):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_key(home, "sa.key", key)
        public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_whole(home.pki / "sa.pub", public)
        made = True
    return made


_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _load(home: LocalHome, name: str) -> _Pair | None:
    """A certificate and its key, if both are readable, belong together and stay valid long enough."""
    try:
        certificate = x509.load_pem_x509_certificate((home.pki / f"{name}.crt").read_bytes())
        key = serialization.load_pem_private_key((home.pki / f"{name}.key").read_bytes(), None)
    except (OSError, ValueError):
        return None
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE:
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return certificate, key


def _fits(certificate: x509.Certificate, leaf: Leaf) -> bool:
    if not leaf.names:
        return True
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return list(names) == _alternative_names(leaf.names)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # cryptography raises a different type for each way of not fitting
        return False
    return True


def _make_authority(home: LocalHome) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two homes' authorities must not be taken for each other by a client that caches by name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"mistral-on-l4 {x509.random_serial_number():x}"[:60])])
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(home, "ca", certificate, key)
    return certificate, key


def _sign(home: LocalHome, leaf: Leaf, authority: _Pair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.organization))
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if leaf.names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(x509.Name(attributes), authority[0].subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if leaf.names:
        builder = builder.add_extension(x509.SubjectAlternativeName(_alternative_names(leaf.names)), critical=False)
    _write(home, leaf.file, builder.sign(authority[1], hashes.SHA256()), key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    return alternatives


def _service_account_key_is_whole(home: LocalHome) -> bool:
    try:
        key = serialization.load_pem_private_key((home.pki / "sa.key").read_bytes(), None)
        public = serialization.load_pem_public_key((home.pki / "sa.pub").read_bytes())
    except (OSError, ValueError):
        return False
    return key.public_key() == public


def _write(home: LocalHome, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write_key(home, f"{name}.key", key)
    write_whole(home.pki / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _write_key(home: LocalHome, file: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_whole(home.pki / file, pem)
