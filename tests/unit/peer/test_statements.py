"""Signed statements say who signed them, what they are and about what; anything else is refused."""

import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from directdownload.peer import statements
from directdownload.peer.statements import Grant, Issuer, Proof, StatementError, Verifier, Warrant

NOW = 1_800_000_000
CONTENT = "5" * 64
CONTROLLER, HOST, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
ISSUER = Issuer(CONTROLLER)
VERIFIER = Verifier([ISSUER.public])
WARRANT = Warrant(CONTENT, "zone-1", 2**20, HOST.public_key().public_bytes_raw(), 7, NOW + 60)
GRANT = Grant(CONTENT, "zone-1", "kvm-1", NOW + 60)
DIGEST = bytes(range(32))


def test_what_was_signed_is_read() -> None:
    assert VERIFIER.warrant(ISSUER.warrant(WARRANT), NOW) == WARRANT
    assert VERIFIER.grant(ISSUER.grant(GRANT), NOW) == GRANT


def test_either_key_of_the_controller_may_have_signed_it() -> None:
    both = Verifier([Issuer(STRANGER).public, ISSUER.public])
    assert both.grant(ISSUER.grant(GRANT), NOW) == GRANT


def test_a_statement_of_another_signer_is_refused() -> None:
    with pytest.raises(StatementError, match="no key of the controller"):
        VERIFIER.grant(Issuer(STRANGER).grant(GRANT), NOW)
    with pytest.raises(StatementError, match="no key of the controller"):
        Verifier([]).grant(ISSUER.grant(GRANT), NOW)


def test_a_grant_passes_for_no_warrant() -> None:
    with pytest.raises(StatementError, match="no key of the controller"):
        VERIFIER.warrant(ISSUER.grant(GRANT), NOW)
    with pytest.raises(StatementError, match="no key of the controller"):
        VERIFIER.grant(ISSUER.warrant(WARRANT), NOW)


def test_an_expired_statement_is_refused_after_the_leeway() -> None:
    token = ISSUER.grant(GRANT)
    assert VERIFIER.grant(token, GRANT.expiry + statements.LEEWAY_SECONDS)
    with pytest.raises(StatementError, match="expired"):
        VERIFIER.grant(token, GRANT.expiry + statements.LEEWAY_SECONDS + 1)


def test_each_changed_character_is_noticed() -> None:
    token = ISSUER.grant(GRANT)
    for place, character in enumerate(token):
        changed = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        with pytest.raises(StatementError):
            VERIFIER.grant(changed, NOW)


@given(st.text(max_size=200))
def test_any_text_is_refused_in_one_way(text: str) -> None:
    for token in (text, statements.encoded(text.encode(errors="replace")) + "." + statements.encoded(bytes(64))):
        with pytest.raises(StatementError):
            VERIFIER.warrant(token, NOW)


@given(
    st.dictionaries(
        st.sampled_from(("content", "zone", "host", "pieceBytes", "signingKey", "epoch", "expiry")),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=70), st.lists(st.none())),
    )
)
def test_fields_out_of_bounds_are_refused_even_if_signed(told: dict[str, object]) -> None:
    for context, told_of in ((statements._WARRANT, WARRANT.told()), (statements._GRANT, GRANT.told())):
        mixed = {**told_of, **told}
        text = json.dumps(mixed).encode()
        token = f"{statements.encoded(text)}.{statements.encoded(CONTROLLER.sign(context + text))}"
        read = VERIFIER.warrant if context == statements._WARRANT else VERIFIER.grant
        try:
            found = read(token, NOW)
        except StatementError:
            continue
        assert all(type(a) is type(b) for a, b in zip(_values(found), _values(WARRANT, found), strict=True))


def _values(statement: object, like: object = None) -> list[object]:
    shown = (WARRANT if isinstance(like, Warrant) else GRANT) if like is not None else statement
    return [getattr(shown, field.name) for field in dataclasses.fields(shown)]  # type: ignore[arg-type]


def test_a_proof_holds_for_its_piece_alone() -> None:
    proof = statements.sign_proof(HOST, CONTENT, 7, 3, DIGEST)
    statements.check_proof(WARRANT, 3, proof)
    other = dataclasses.replace(WARRANT, content="6" * 64)
    later = dataclasses.replace(WARRANT, epoch=8)
    for warrant, index, shown in (
        (WARRANT, 4, proof),
        (other, 3, proof),
        (later, 3, proof),
        (WARRANT, 3, Proof(7, bytes(32), proof.signature)),
        (WARRANT, 3, statements.sign_proof(STRANGER, CONTENT, 7, 3, DIGEST)),
        (WARRANT, 3, Proof(7, DIGEST, bytes(64))),
    ):
        with pytest.raises(StatementError):
            statements.check_proof(warrant, index, shown)
