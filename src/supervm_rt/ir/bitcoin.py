"""Bitcoin's translator."""

from __future__ import annotations

from supervm_rt.ir._bitcoin import parse_block
from supervm_rt.ir.networks import network_of
from supervm_rt.ir.translator import BlockClaims, BlockRefused, TranslatedBlock
from supervm_rt.model.chain import ForkMode, Reason


class BitcoinTranslator:
    """Raw blocks of one Bitcoin network to verified identity and IR.

    Checked: the encoding (with the limit of 4,000,000 weight units), proof of work against the block's own bits and the
    network's limit, the Merkle root, repeated transactions, the coinbase's place, the witness commitment. Not checked: what
    needs other blocks, scripts, or a signet's block solution. Of all byte strings that have one block hash, exactly one is
    accepted, so the hash alone tells blocks apart.
    """

    family = "bitcoin"
    default_mode = ForkMode.HEAVIEST
    default_final_depth: int | None = 100

    def __init__(self, network: str) -> None:
        """network: main, testnet3, testnet4, signet or regtest. Raises ConfigurationError."""
        rules = network_of(network)
        self.network = rules.name
        self.genesis: bytes | None = rules.genesis
        self.genesis_hash: bytes | None = rules.genesis_hash
        self._power_limit = rules.power_limit.to_bytes(32, "little")
        self._segwit_height = rules.segwit_height

    def translate(self, claims: BlockClaims) -> TranslatedBlock:
        """Parses and verifies one block.

        A claimed hash or parent that the bytes do not give is refused; a claimed height is passed on; time and weight are
        computed, whatever was claimed. The bytes must not change during the call. Raises BlockRefused.
        """
        hash_, parent, time, target, height, transaction_ids, ir = parse_block(claims, self._power_limit, self._segwit_height)
        if claims.hash and claims.hash != hash_:
            raise BlockRefused(Reason.MALFORMED, f"announced as {claims.hash.hex()}, but the bytes give another hash", hash_)
        if claims.parent and claims.parent != parent:
            raise BlockRefused(
                Reason.MALFORMED, f"announced with the parent {claims.parent.hex()}, but the bytes name {parent.hex()}", hash_
            )
        return TranslatedBlock(
            hash=hash_,
            parent=parent,
            weight=(1 << 256) // (target + 1),
            time=time,
            root_height=0 if hash_ == self.genesis_hash else height,
            height=claims.height,
            transaction_ids=transaction_ids,
            ir=ir,
        )
