"""What a server gives to a host that may have it."""

from tests.unit.peer.conftest import Pair
from tests.world.peerclient import Wire, state

from directdownload.peer import protocol, statements


def test_a_piece_comes_with_its_proof_and_the_warrant_of_its_signer(pair: Pair) -> None:
    pair.seed.write(pair.file, range(4))
    with Wire(pair.seed, pair.reader) as wire:
        for index in (0, 3):
            answer = wire.piece(pair.file, index, pair.grant)
            assert (answer.status, answer.body) == (200, pair.file.piece(index))
            verifier = statements.Verifier([pair.fleet.issuer.public])
            warrant = verifier.warrant(answer.fields["piece-warrant"], 0)
            proof = protocol.read_proof(answer.fields["piece-proof"])
            statements.check_proof(warrant, index, proof)
            assert proof.digest == pair.file.digest(index)


def test_a_piece_that_is_not_there_yet_is_not_found_and_announced_when_it_comes(pair: Pair) -> None:
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream, Wire(pair.seed, pair.reader) as wire:
        assert stream.line() == {"pieceBytes": pair.file.piece_bytes, "size": len(pair.file.data), "have": ""}
        assert wire.piece(pair.file, 2, pair.grant).status == 404
        pair.seed.write(pair.file, [2])
        assert stream.line() == {"add": [2]}
        assert wire.piece(pair.file, 2, pair.grant).body == pair.file.piece(2)


def test_a_seed_gives_a_piece_to_one_host_which_passes_it_on(pair: Pair) -> None:
    with state(pair.seed, pair.reader, pair.file, pair.grant) as stream, Wire(pair.seed, pair.reader) as wire:
        stream.line()
        pair.seed.write(pair.file, [2])
        assert stream.line() == {"add": [2]}
        assert wire.piece(pair.file, 2, pair.grant).status == 200
        assert wire.piece(pair.file, 2, pair.grant).status == 404
        assert stream.line() == {"drop": [2]}
