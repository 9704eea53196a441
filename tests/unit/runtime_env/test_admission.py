"""Which bundles a node takes: signed by a trusted key, unchanged, not older than before, for this machine."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from rayline.errors import BundleRefused, ConfigError, RolledBack, SignatureWrong, Unsigned, WrongPlatform
from runtime_env.admission import Admission, SeenCounters
from runtime_env.bundle import Bundle, Host, Layer, LayerKind
from runtime_env.signing import SignedBundle, SigningKey, Trust
from tests.support.layers import bundle_of

LAYER = Layer("app", LayerKind.APP, "sha256:" + "a" * 64, 10, 20, 1)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.generate(tmp_path / "keys" / "signer.pem")


@pytest.fixture
def trust(tmp_path: Path, key: SigningKey) -> Trust:
    path = tmp_path / "trust"
    path.write_text(f"# who may sign\ned25519 {key.public} ci\n")
    return Trust.read(path)


def gate(tmp_path: Path, trust: Trust, host: Host | None = None) -> Admission:
    return Admission(trust=trust, seen=SeenCounters(path=tmp_path / "seen.json"), host=host)


def test_a_signed_bundle_survives_the_store_and_is_admitted(tmp_path: Path, key: SigningKey, trust: Trust) -> None:
    signed = SignedBundle.from_bytes(key.sign(bundle_of(LAYER), 3).to_bytes())
    assert gate(tmp_path, trust).admit(signed) == bundle_of(LAYER)


def test_an_unsigned_bundle_is_for_development_only(tmp_path: Path, trust: Trust) -> None:
    unsigned = SignedBundle(bundle_of(LAYER), 1, {})
    with pytest.raises(Unsigned, match="--dev"):
        gate(tmp_path, trust).admit(unsigned)
    gate(tmp_path, Trust.read(None, development=True)).admit(unsigned)


def test_a_stranger_s_signature_is_refused_even_in_development(tmp_path: Path, trust: Trust) -> None:
    stranger = SigningKey.generate(tmp_path / "stranger.pem").sign(bundle_of(LAYER), 1)
    for judge in (trust, Trust.read(None, development=True)):
        with pytest.raises(SignatureWrong, match="nobody here trusts"):
            gate(tmp_path, judge).admit(stranger)


@pytest.mark.parametrize("change", ["variables", "counter", "signature", "layer"])
def test_one_changed_field_breaks_the_signature(tmp_path: Path, key: SigningKey, trust: Trust, change: str) -> None:
    signed = key.sign(bundle_of(LAYER), 1)
    text = base64.b64decode(signed.signatures[key.name])
    changed = {
        "variables": replace(signed, bundle=replace(signed.bundle, variables={"LD_PRELOAD": "evil"})),
        "layer": replace(signed, bundle=bundle_of(replace(LAYER, digest="sha256:" + "b" * 64))),
        "counter": replace(signed, counter=9),
        "signature": replace(signed, signatures={key.name: base64.b64encode(bytes([text[0] ^ 1]) + text[1:]).decode()}),
    }[change]
    with pytest.raises(SignatureWrong, match="changed after it was signed"):
        gate(tmp_path, trust).admit(changed)


def test_an_older_counter_is_refused_once_a_newer_one_was_used(tmp_path: Path, key: SigningKey, trust: Trust) -> None:
    old, new = key.sign(bundle_of(LAYER), 1), key.sign(bundle_of(LAYER, version="v2"), 2)
    first = gate(tmp_path, trust)
    first.admit(new)
    first.used(new)
    with pytest.raises(RolledBack, match="publish the old contents again"):
        gate(tmp_path, trust).admit(old)
    gate(tmp_path, trust).admit(new)
    gate(tmp_path, trust).admit(key.sign(bundle_of(LAYER, app="other"), 1))


def test_a_damaged_memory_of_counters_is_not_taken_for_an_empty_one(tmp_path: Path, trust: Trust, key: SigningKey) -> None:
    (tmp_path / "seen.json").write_text("{")
    with pytest.raises(ConfigError, match="rolled-back"):
        gate(tmp_path, trust).admit(key.sign(bundle_of(LAYER), 1))


@pytest.mark.parametrize(
    ("host", "match"),
    [
        (Host("linux", "aarch64", "glibc", (2, 36)), "aarch64"),
        (Host("darwin", "x86_64", "unknown", ()), "darwin"),
        (Host("linux", "x86_64", "glibc", (2, 17)), "older"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(tmp_path: Path, key: SigningKey, trust: Trust, host: Host, match: str) -> None:
    made_for = Host("linux", "x86_64", "glibc", (2, 36))
    with pytest.raises(WrongPlatform, match=match):
        gate(tmp_path, trust, host).admit(key.sign(bundle_of(LAYER, host=made_for), 1))


def test_a_newer_c_library_is_no_hindrance(tmp_path: Path, key: SigningKey, trust: Trust) -> None:
    made_for, here = Host("linux", "x86_64", "glibc", (2, 9)), Host("linux", "x86_64", "glibc", (2, 36))
    gate(tmp_path, trust, here).admit(key.sign(bundle_of(LAYER, host=made_for), 1))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b"{" * 10_000,
        json.dumps({"counter": True, "signatures": {}, "bundle": {}}).encode(),
        json.dumps({"counter": 1, "signatures": {}, "bundle": {"v": 9}}).encode(),
        json.dumps({"counter": 1, "signatures": {}, "bundle": {"v": 1}}).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(damage: bytes) -> None:
    with pytest.raises(BundleRefused):
        SignedBundle.from_bytes(damage)


def test_a_layer_s_digest_can_never_be_a_path() -> None:
    data = bundle_of(LAYER).as_dict()
    data["layers"][0]["digest"] = "sha256:../../../../etc/passwd"
    with pytest.raises(BundleRefused, match="no digest"):
        Bundle.from_dict(data)


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "keys" / "signer.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.read(path).name == key.name
    with pytest.raises(ConfigError, match="never overwritten"):
        SigningKey.generate(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        SigningKey.read(path)


def test_a_wrong_line_of_a_trust_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trust"
    path.write_text("\nrsa AAAA me\n")
    with pytest.raises(ConfigError, match=r"trust:2: .*ed25519 BASE64"):
        Trust.read(path)
