"""Types of the compiled Bitcoin parser."""

from typing_extensions import Buffer

def parse_block(source: Buffer, pow_limit: bytes, segwit_height: int) -> tuple[bytes, bytes, int, int, int | None, bytes, bytes]:
    """Parses, verifies and encodes one raw block: (hash, parent, time, target, BIP 34 height, transaction ids, IR).

    pow_limit: the network's highest target, 32 little-endian bytes. segwit_height: the first height at which witness data may
    exist; 0: at every height. Raises BlockRefused.
    """
