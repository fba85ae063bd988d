from supervm_rt._abi import Frame

def hear(
    data: bytes | memoryview, *, generation: int, chain: bytes | None = None
) -> tuple[list[Frame], tuple[int, bytes] | None]:
    """Reads one BlockMessage that a plugin sent.

    chain: what the plugin may name as its chain; None: anything. Returns (frames, None), or ([], (number, content)): the number
    of the body's field in BlockMessage, and the encoded submessage, which is sound as an encoding.

    A payload that is large beside the whole message is a view of data, which then lives as long as the frame; smaller ones are
    copied. Raises MessageRefused, and TypeError where data is no contiguous buffer that nobody can write to.
    """
