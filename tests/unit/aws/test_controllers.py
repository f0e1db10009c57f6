"""The stand-in for cert-manager signs real certificates."""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from embedded.plugins.aws.controllers import _issued


def certificate(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "minio-storage", "name": name}, "spec": {"secretName": name, **spec}}


def decoded(secret: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(secret["data"][key])


def test_a_server_certificate_is_signed_by_the_authority_and_names_the_service() -> None:
    authority = _issued(certificate("minio-ca", isCA=True, commonName="object store"), (b"", b""))
    signer = decoded(authority, "tls.crt"), decoded(authority, "tls.key")
    names = ["minio.minio-storage.svc", "minio"]
    secret = _issued(certificate("minio-tls", dnsNames=names), signer)
    assert (secret["type"], secret["metadata"]["name"]) == ("kubernetes.io/tls", "minio-tls")
    # Clients trust the server by what lies beside its certificate.
    assert decoded(secret, "ca.crt") == signer[0]
    root, leaf = (x509.load_pem_x509_certificate(text) for text in (signer[0], decoded(secret, "tls.crt")))
    leaf.verify_directly_issued_by(root)
    alternative = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(alternative, x509.SubjectAlternativeName)
    assert alternative.get_values_for_type(x509.DNSName) == names
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is True
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
