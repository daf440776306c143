"""Certificates for https: made by an authority of the host's own, and judged, an admin's too.

Nothing here touches a disk. `cryptography` is imported where it is used: it takes its time.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from lava_deploy.errors import BadCertificate
from lava_deploy.model import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
        PrivateKeyTypes,
    )

AUTHORITY_LASTS = timedelta(days=3652)
# What browsers take at most is 398 days.
LASTS = timedelta(days=397)
# Clocks of boards and workers may be slow.
BACK_DATED = timedelta(hours=1)
# RFC 5280, ub-common-name
COMMON_NAME_LENGTH = 64
# What browsers take; with less Apache does not start, as Debian's OpenSSL has security level 2.
RSA_BITS, CURVE_BITS = 2048, 256
WEAK_HASHES = frozenset(("md5", "sha1"))


@dataclass(frozen=True)
class Pair:
    """A certificate in PEM form, followed by those of its issuers if there are any, and its key."""

    certificate: str
    key: Secret


@dataclass(frozen=True)
class Certificate:
    """What a certificate says: host names and IP addresses, who issued it, and from when to when.

    Names may begin with the wildcard `*.`; times are in UTC.
    """

    names: tuple[str, ...]
    issuer: str
    begins: datetime
    expires: datetime


# Making


def make_authority(name: str, now: datetime) -> Pair:
    """A new authority, good for ten years; its key can sign certificates of hosts only."""
    from cryptography import x509

    key = _new_key()
    subject = _name(name)
    builder = (
        _begun(subject, subject, key.public_key(), now, now + AUTHORITY_LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(_identifier_of_issuer(key.public_key()), critical=False)
    )
    return Pair(_signed(builder, key), _pem(key))


def issue(authority: Pair, hostname: str, others: Iterable[str], now: datetime) -> Pair:
    """A certificate for a host name and other names or IP addresses, and the authority's own.

    It is good for 397 days, and no longer than the authority. Raises BadCertificate for an
    authority that cannot be read or is over.
    """
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    [issuer, *_] = _certificates(authority.certificate)
    if now >= issuer.not_valid_after_utc:
        raise BadCertificate(f"the authority expired on {_day(issuer.not_valid_after_utc)}")
    issuer_key = cast("ec.EllipticCurvePrivateKey", _private_key(authority.key))
    key = _new_key()
    subject = _name(hostname)
    expires = min(now + LASTS, issuer.not_valid_after_utc)
    names = x509.SubjectAlternativeName(
        _general(each) for each in dict.fromkeys([hostname, *others])
    )
    builder = (
        _begun(subject, issuer.subject, key.public_key(), now, expires)
        # a certificate without a subject is known by these alone: RFC 5280, 4.2.1.6
        .add_extension(names, critical=not list(subject))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_identifier_of_issuer(issuer_key.public_key()), critical=False)
    )
    return Pair(_signed(builder, issuer_key) + authority.certificate, _pem(key))


# Reading


def read(pem: str) -> Certificate:
    """What the first certificate of a text says. Raises BadCertificate."""
    return _read(_certificates(pem)[0])


def covers(certificate: Certificate, hostname: str) -> bool:
    """Whether a certificate is one for a host name, or an IP address.

    A wildcard stands for one label, the left-most (RFC 6125, 6.4.3), of at least three, as OpenSSL
    has it. As for browsers, the subject does not count.
    """
    wanted = _comparable(hostname)
    _, _, parent = wanted.partition(".")
    names = {_comparable(name) for name in certificate.names}
    return wanted in names or ("." in parent and not _is_address(wanted) and f"*.{parent}" in names)


def faults(certificate: str, key: Secret, hostname: str, now: datetime) -> list[str]:
    """Why Apache or browsers would refuse a certificate and its key, both as text in PEM form.

    The certificates of issuers may follow the first. With '' for the host name, any name will do.
    Apache's configtest finds none of this, and at the next reload Apache ends itself, or waits for
    a password for ever.
    """
    found: list[str] = []
    chain: list[x509.Certificate] = []
    try:
        chain = _certificates(certificate)
        found += _leaf_faults(chain[0], hostname, now) + _strength_faults(chain)
    except BadCertificate as bad:
        found.append(str(bad))
    if "PRIVATE KEY-----" in certificate:
        found.append("the file of the certificate has a private key in it, which others may read")
    try:
        found += _key_faults(chain, _private_key(key))
    except BadCertificate as bad:
        found.append(str(bad))
    return found


def _leaf_faults(leaf: x509.Certificate, hostname: str, now: datetime) -> list[str]:
    """What is wrong with a certificate, whatever its key."""
    said, found = _read(leaf), []
    if now >= said.expires:
        found.append(f"the certificate expired on {_day(said.expires)}")
    if now < said.begins:
        found.append(f"the certificate is not valid before {_day(said.begins)}")
    if hostname and not covers(said, hostname):
        names = ", ".join(said.names) or "no host at all (it has no subjectAltName)"
        found.append(f"the certificate does not name {hostname}; it names {names}")
    return found


def _strength_faults(chain: list[x509.Certificate]) -> list[str]:
    found = []
    for place, one in enumerate(chain, 1):
        signature = one.signature_hash_algorithm
        # whoever trusts a certificate signed by its own key does not look at the signature
        if one.issuer != one.subject and signature and signature.name in WEAK_HASHES:
            found.append(
                f"certificate {place} of the file is signed with {signature.name}: that is too weak"
            )
        if not _is_strong(one.public_key()):
            found.append(
                f"the key of certificate {place} of the file should be one of RSA with {RSA_BITS} "
                f"bits or more, or of a curve with {CURVE_BITS} or more"
            )
    return found


def _is_strong(key: CertificatePublicKeyTypes) -> bool:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= CURVE_BITS


def _key_faults(chain: list[x509.Certificate], key: PrivateKeyTypes) -> list[str]:
    """Why a key is not that of the first of these certificates."""
    places = [place for place, one in enumerate(chain, 1) if one.public_key() == key.public_key()]
    if not chain or places[:1] == [1]:
        return []
    if not places:
        return ["the key does not belong to the certificate"]
    return [
        f"the key belongs to certificate {places[0]} of the file, "
        "which should be the first, followed by those of its issuers"
    ]


def _certificates(pem: str) -> list[x509.Certificate]:
    """All certificates of a text, in their order; at least one."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for one in found:  # these are parsed when they are asked for
            _ = one.extensions, one.public_key(), one.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as wrong:
        raise BadCertificate("there is no usable certificate in PEM form") from wrong
    return found


def _private_key(pem: Secret) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem.reveal().encode(), None)
    except TypeError as encrypted:  # it takes a password
        raise BadCertificate(
            "the key is encrypted: the web server could not start by itself",
            hint="`openssl pkey -in KEY -out NEW` writes it without a password.",
        ) from encrypted
    except (ValueError, UnsupportedAlgorithm) as wrong:
        raise BadCertificate("there is no private key in PEM form") from wrong


def _read(certificate: x509.Certificate) -> Certificate:
    return Certificate(
        _names(certificate),
        certificate.issuer.rfc4514_string(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        said = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, said.get_values_for_type(x509.IPAddress))
    return (*said.get_values_for_type(x509.DNSName), *addresses)


def _comparable(name: str) -> str:
    """A name as it is compared: host names in lower case, addresses in their one short form."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


# Pieces of certificates


def _new_key() -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> Secret:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def _name(common_name: str) -> x509.Name:
    """A subject; an empty one where the name is longer than it may be."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    fits = len(common_name) <= COMMON_NAME_LENGTH
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if fits else [])


def _general(name: str) -> x509.GeneralName:
    from cryptography import x509

    if _is_address(name):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    expires: datetime,
) -> x509.CertificateBuilder:
    """What all certificates have."""
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK_DATED)
        .not_valid_after(expires)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _identifier_of_issuer(key: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    """Without it, Python 3.13 refuses a certificate (VERIFY_X509_STRICT)."""
    from cryptography import x509

    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """Either an authority, which signs certificates, or a server, which signs handshakes."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
