import contextlib
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.verification import PolicyBuilder, Store

from lava_deploy import certificates
from lava_deploy.certificates import Certificate, Pair
from lava_deploy.errors import BadCertificate
from lava_deploy.model import Secret

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
AUTHORITY = certificates.make_authority("LAVA on lab", NOW)
PAIR = certificates.issue(AUTHORITY, "lab.example.com", ["localhost", "::1", "10.0.0.7"], NOW)
LEAF = PAIR.certificate.removesuffix(AUTHORITY.certificate)

# The library makes none any more: openssl x509 -req -sha1
SIGNED_WITH_SHA1 = """\
-----BEGIN CERTIFICATE-----
MIIBGTCBwAIUHwzv8R8qJotujf4GB23D8XXMxtkwCQYHKoZIzj0EATAOMQwwCgYD
VQQDDANPbGQwIBcNMjYxMTI1MDkyMTIwWhgPMjEwOTAxMTQwOTIxMjBaMBAxDjAM
BgNVBAMMBU9sZGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAExGkMNQE3lGb/
3qqFMoHyjY0AQHKhOVkacCACo3RtvhmSTDGxQ0OaNYHOcLEzqQxaUv4H7D2vYDDX
ZDFjGbywFTAJBgcqhkjOPQQBA0kAMEYCIQDYAKgGJoVNoU+Qykt/TT7EzX4t87Z7
qvSBwWYjhQIagQIhAPbNJ7oyaK1qXoTZqBMSDjgJZYA2wyczyoC/JqYE4c/l
-----END CERTIFICATE-----
"""


def faults(certificate=PAIR.certificate, key=PAIR.key, hostname="lab.example.com", now=NOW):
    return certificates.faults(certificate, key, hostname, now)


def own(key, algorithm=None):
    """An admin's certificate for lab.example.com, with any key."""
    nobody = x509.Name([])
    names = x509.SubjectAlternativeName([x509.DNSName("lab.example.com")])
    builder = x509.CertificateBuilder(
        nobody, nobody, key.public_key(), 1, NOW, NOW + timedelta(days=9)
    ).add_extension(names, critical=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    signed = builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()
    return Pair(signed, Secret(pem))


def handshake(serving, trusting, name):
    """The version of TLS that a server and a client agree on, in memory."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(up, down, server_side=True)
    client = trusting.wrap_bio(down, up, server_hostname=name)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.version()


def certificate(*names):
    return Certificate(names, "CN=x", NOW, NOW)


def test_a_certificate_stands_the_test_of_one_who_trusts_the_authority():
    leaf, authority = x509.load_pem_x509_certificates(PAIR.certificate.encode())
    for name in (x509.DNSName("lab.example.com"), x509.DNSName("localhost")):
        verifier = PolicyBuilder().store(Store([authority])).time(NOW).build_server_verifier(name)
        assert len(verifier.verify(leaf, [])) == 2


def test_a_strict_client_connects_by_each_name_of_a_certificate(tmp_path):
    now = datetime.now(UTC)
    authority = certificates.make_authority("LAVA on lab", now)
    pair = certificates.issue(authority, "lab.example.com", ["::1", "10.0.0.7"], now)
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_text(pair.certificate)
    files[1].write_text(pair.key.reveal())
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*files)
    trusting = ssl.create_default_context(cadata=authority.certificate)
    # as Python 3.13 has it by itself
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    for name in certificates.read(pair.certificate).names:
        assert handshake(serving, trusting, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(serving, trusting, "other.example.com")


def test_a_certificate_names_its_host_and_others_and_its_issuer():
    said = certificates.read(PAIR.certificate)
    assert said.names == ("lab.example.com", "localhost", "::1", "10.0.0.7")
    assert said.issuer == "CN=LAVA on lab"
    assert said.begins == NOW - timedelta(hours=1)
    assert said.expires == NOW + timedelta(days=397)


def test_a_name_given_twice_is_named_once():
    twice = certificates.issue(AUTHORITY, "localhost", ["localhost"], NOW)
    assert certificates.read(twice.certificate).names == ("localhost",)


def test_a_name_too_long_for_a_subject_is_named():
    long = f"{'a' * 60}.example.com"
    pair = certificates.issue(AUTHORITY, long, [], NOW)
    assert certificates.read(pair.certificate).names == (long,)
    assert faults(pair.certificate, pair.key, long) == []


def test_a_certificate_does_not_outlive_its_authority():
    late = NOW + timedelta(days=3600)
    end = certificates.read(AUTHORITY.certificate).expires
    pair = certificates.issue(AUTHORITY, "localhost", [], late)
    assert certificates.read(pair.certificate).expires == end
    with pytest.raises(BadCertificate, match="the authority expired on 2036-11-24 12:00 UTC"):
        certificates.issue(AUTHORITY, "localhost", [], end)


def test_keys_do_not_show_themselves():
    assert "PRIVATE" not in f"{PAIR} {PAIR!r}"
    assert "PRIVATE" in PAIR.key.reveal()


@pytest.mark.parametrize(
    ("names", "hostname", "answer"),
    [
        (["lab.example.com"], "LAB.example.com.", True),
        (["*.Example.com"], "lab.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.com"], "a.lab.example.com", False),
        (["l*.example.com"], "lab.example.com", False),
        (["*"], "localhost", False),
        (["*.0.0.1"], "127.0.0.1", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["2001:db8::1"], "2001:DB8:0::1", True),
        (["::1"], "[::1]", True),
        ([], "lab.example.com", False),
    ],
)
def test_a_wildcard_stands_for_one_label(names, hostname, answer):
    assert certificates.covers(certificate(*names), hostname) is answer


def test_a_good_certificate_has_no_fault():
    assert faults() == []
    assert faults(LEAF) == []
    assert faults(hostname="") == []


def test_what_is_no_certificate_and_what_is_no_key_is_told_at_once():
    assert faults("nonsense", Secret("nonsense")) == [
        "there is no usable certificate in PEM form",
        "there is no private key in PEM form",
    ]
    with pytest.raises(BadCertificate, match="no usable certificate"):
        certificates.read(PAIR.key.reveal())


def test_a_broken_certificate_is_none():
    assert faults(LEAF.replace("MII", "MIX", 1)) == ["there is no usable certificate in PEM form"]


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_told_as_such(form):
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"x")).decode()
    assert faults(key=Secret(text)) == [
        "the key is encrypted: the web server could not start by itself"
    ]


def test_a_key_of_another_certificate_does_not_belong():
    assert faults(key=AUTHORITY.key, certificate=LEAF) == [
        "the key does not belong to the certificate"
    ]


def test_a_chain_in_the_wrong_order_is_told_as_such():
    [*others, fault] = faults(AUTHORITY.certificate + LEAF)
    assert fault == (
        "the key belongs to certificate 2 of the file, "
        "which should be the first, followed by those of its issuers"
    )
    assert len(others) == 1  # of the names in the authority's


def test_a_certificate_is_good_from_its_first_moment_to_before_its_last():
    said = certificates.read(LEAF)
    assert faults(now=said.begins) == []
    assert faults(now=said.begins - timedelta(seconds=1)) == [
        "the certificate is not valid before 2026-11-25 11:00 UTC"
    ]
    assert faults(now=said.expires) == ["the certificate expired on 2027-12-27 12:00 UTC"]


def test_all_faults_of_a_certificate_are_told_at_once():
    late = NOW + timedelta(days=3000)
    assert faults(key=AUTHORITY.key, certificate=LEAF, hostname="other.com", now=late) == [
        "the certificate expired on 2027-12-27 12:00 UTC",
        "the certificate does not name other.com; "
        "it names lab.example.com, localhost, ::1, 10.0.0.7",
        "the key does not belong to the certificate",
    ]


def test_a_certificate_without_names_says_so():
    [fault] = faults(AUTHORITY.certificate, AUTHORITY.key)
    assert fault == (
        "the certificate does not name lab.example.com; "
        "it names no host at all (it has no subjectAltName)"
    )


def test_a_key_in_the_file_of_the_certificate_is_a_fault():
    [fault] = faults(PAIR.certificate + PAIR.key.reveal())
    assert fault.startswith("the file of the certificate has a private key in it")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 1024), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP224R1()), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
)
def test_a_key_that_apache_or_browsers_refuse_is_a_fault(key, algorithm):
    pair = own(key, algorithm)
    [fault] = faults(pair.certificate, pair.key)
    assert "key of certificate 1 of the file should be one of RSA with 2048 bits or more" in fault


def test_an_issuer_too_weak_for_apache_is_a_fault():
    weak = own(rsa.generate_private_key(65537, 1024), hashes.SHA256())
    assert faults(LEAF + SIGNED_WITH_SHA1 + weak.certificate) == [
        "certificate 2 of the file is signed with sha1: that is too weak",
        "the key of certificate 3 of the file should be one of RSA with 2048 bits or more, "
        "or of a curve with 256 or more",
    ]


@pytest.mark.parametrize(
    "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]
)
def test_usual_keys_of_an_admin_are_good(key):
    pair = own(key, hashes.SHA256())
    assert faults(pair.certificate, pair.key) == []


def test_the_library_is_not_loaded_before_it_is_needed():
    code = (
        "import sys, lava_deploy.certificates, lava_deploy.parts.tls;"
        "sys.exit('cryptography' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
