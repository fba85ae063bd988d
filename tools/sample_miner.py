"""Mines blocks of many kinds of payments on a regtest bitcoind that has no wallet: fixed keys, fixed clock, fixed dice."""

import hashlib
import random
from dataclasses import dataclass, field

from bitcoind import Bitcoind

START_TIME = 1_700_000_000
BLOCK_INTERVAL = 600
COINBASE_MATURITY = 100
SUBSIDY = 5_000_000_000
HALVING_INTERVAL = 150
OLDER = 5
SEED = "supervm-rt sample chain"


def wallet_import_format(number: int, *, compressed: bool = True) -> str:
    """A fixed regtest private key, as descriptors want it."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    secret = hashlib.sha256(b"supervm-rt sample key %d" % number).digest()
    payload = b"\xef" + secret + (b"\x01" if compressed else b"")
    payload += hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
    value, text = int.from_bytes(payload, "big"), ""
    while value:
        value, digit = divmod(value, 58)
        text = alphabet[digit] + text
    return text


@dataclass(frozen=True)
class Kind:
    """One type of output: its script, and the descriptor that spends it (empty: nothing is needed to spend it)."""

    script: bytes
    descriptor: str = ""
    spendable: bool = True


def push(data: bytes) -> bytes:
    if len(data) < 0x4C:
        return bytes([len(data)]) + data
    return (b"\x4c" + bytes([len(data)]) if len(data) < 0x100 else b"\x4d" + len(data).to_bytes(2, "little")) + data


def make_kinds(node: Bitcoind) -> dict[str, Kind]:
    """Every standard output type, and some that no node would relay but every node accepts in a block."""
    key = [wallet_import_format(number) for number in range(8)]
    old_key = wallet_import_format(8, compressed=False)

    def public(private: str) -> bytes:
        descriptor = node.rpc("getdescriptorinfo", f"pk({private})")["descriptor"]
        return bytes.fromhex(descriptor.removeprefix("pk(").partition(")")[0])

    def addressed(descriptor: str) -> Kind:
        checksummed = node.rpc("getdescriptorinfo", descriptor)
        [address] = node.rpc("deriveaddresses", checksummed["descriptor"])
        script = bytes.fromhex(node.rpc("validateaddress", address)["scriptPubKey"])
        return Kind(script, f"{descriptor}#{checksummed['checksum']}")

    def bare(descriptor: str, script: bytes) -> Kind:
        return Kind(script, f"{descriptor}#{node.rpc('getdescriptorinfo', descriptor)['checksum']}")

    # The point of BIP 341 that nobody has the private key of: only a script can spend.
    nobody = "50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"
    keys_1_of_2 = push(public(key[0])) + push(public(key[1]))
    keys_2_of_3 = b"".join(push(public(key[number])) for number in (3, 4, 5))
    return {
        "p2pk": bare(f"pk({key[0]})", push(public(key[0])) + b"\xac"),
        "p2pk-uncompressed": bare(f"pk({old_key})", push(public(old_key)) + b"\xac"),
        "p2pkh": addressed(f"pkh({key[1]})"),
        "p2pkh-uncompressed": addressed(f"pkh({old_key})"),
        "p2sh-multisig": addressed(f"sh(multi(2,{key[1]},{key[2]},{key[3]}))"),
        "p2sh-p2wpkh": addressed(f"sh(wpkh({key[2]}))"),
        "p2sh-p2wsh": addressed(f"sh(wsh(multi(2,{key[2]},{key[3]})))"),
        "p2wpkh": addressed(f"wpkh({key[4]})"),
        "p2wsh-multisig": addressed(f"wsh(multi(2,{key[4]},{key[5]},{key[6]}))"),
        "p2wsh-older": addressed(f"wsh(and_v(v:pk({key[5]}),older({OLDER})))"),
        "p2tr-key": addressed(f"tr({key[6]})"),
        "p2tr-script": addressed(f"tr({nobody},{{pk({key[7]}),multi_a(2,{key[0]},{key[1]})}})"),
        "multisig-1-of-2": bare(f"multi(1,{key[0]},{key[1]})", b"\x51" + keys_1_of_2 + b"\x52\xae"),
        "multisig-2-of-3": bare(f"multi(2,{key[3]},{key[4]},{key[5]})", b"\x52" + keys_2_of_3 + b"\x53\xae"),
        "anchor": Kind(bytes.fromhex("51024e73")),
        "witness-unknown": Kind(b"\x52" + push(hashlib.sha256(b"a program of the future").digest())),
        "nonstandard-true": Kind(b"\x51"),
        "nonstandard-cut": Kind(bytes.fromhex("4c"), spendable=False),
        "nonstandard-empty": Kind(b"", spendable=False),
        "nulldata": Kind(b"\x6a" + push(b"supervm-rt sample chain"), spendable=False),
        "nulldata-empty": Kind(b"\x6a", spendable=False),
        "nulldata-several": Kind(b"\x6a" + push(b"one") + push(b"two") + b"\x51", spendable=False),
        "nulldata-long": Kind(b"\x6a" + push(bytes(range(80))), spendable=False),
    }


def compact_size(value: int) -> bytes:
    return bytes([value]) if value < 0xFD else b"\xfd" + value.to_bytes(2, "little")


@dataclass(frozen=True)
class Output:
    """One unspent output."""

    transaction: str
    index: int
    amount: int
    kind: Kind
    height: int
    coinbase: bool = False


@dataclass(frozen=True)
class Transaction:
    """A signed transaction, what it spends, and what it makes that can be spent (at the height of the first block with it)."""

    raw: str
    spends: tuple[Output, ...]
    makes: tuple[Output, ...]


@dataclass
class Block:
    """A mined block, and what it did to the set of unspent outputs."""

    hash: str
    raw: str
    transactions: tuple[Transaction, ...]
    coinbase: Output


@dataclass
class Miner:
    """Mines on one node and keeps the spendable outputs of the chain that is active there."""

    node: Bitcoind
    kinds: dict[str, Kind]
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    unspent: dict[tuple[str, int], Output] = field(default_factory=dict)
    chain: list[Block] = field(default_factory=list)
    time: int = START_TIME
    made: int = 0

    def transaction(
        self, spends: list[Output], outputs: list[tuple[Kind, int]], *, version: int = 2, lock_time: int = 0
    ) -> Transaction:
        """Builds and signs. All of ``spends`` need a signature, or none does."""
        raw = version.to_bytes(4, "little") + compact_size(len(spends))
        for output in spends:
            sequence = OLDER if output.kind is self.kinds["p2wsh-older"] else 0xFFFFFFFE if lock_time else 0xFFFFFFFD
            raw += bytes.fromhex(output.transaction)[::-1] + output.index.to_bytes(4, "little")
            raw += b"\x00" + sequence.to_bytes(4, "little")
        raw += compact_size(len(outputs))
        for kind, amount in outputs:
            raw += amount.to_bytes(8, "little") + compact_size(len(kind.script)) + kind.script
        raw += lock_time.to_bytes(4, "little")
        signed = raw.hex()
        if spends[0].kind.descriptor:
            request = self.node.rpc("converttopsbt", signed)
            answer = self.node.rpc("descriptorprocesspsbt", request, sorted({output.kind.descriptor for output in spends}))
            if not answer["complete"]:
                raise SystemExit(f"the node could not sign a spend of {[output.kind.descriptor for output in spends]}")
            signed = answer["hex"]
        identity = self.node.rpc("decoderawtransaction", signed)["txid"]
        height = len(self.chain) + 1
        makes = (Output(identity, index, amount, kind, height) for index, (kind, amount) in enumerate(outputs) if kind.spendable)
        return Transaction(signed, tuple(spends), tuple(makes))

    def ripe(self, height: int) -> list[Output]:
        """What a block of this height may spend."""
        return [
            output
            for output in self.unspent.values()
            if height - output.height >= (COINBASE_MATURITY if output.coinbase else OLDER)
        ]

    def payment(self, taken: set[Output], inputs: int, outputs: int) -> Transaction | None:
        """Spends some outputs that are not yet taken, each type in its turn, or None where nothing is ripe."""
        height = len(self.chain) + 1
        ripe = [output for output in self.ripe(height) if output not in taken and output.amount >= 20_000]
        if not ripe:
            return None
        first = self.dice.choice(ripe)
        alike = [output for output in ripe if output is not first and bool(output.kind.descriptor) == bool(first.kind.descriptor)]
        spends = [first, *self.dice.sample(alike, min(inputs - 1, len(alike)))]
        taken.update(spends)
        amount = sum(output.amount for output in spends) - self.dice.randrange(200, 5_000)
        names = list(self.kinds)
        paid = []
        for _ in range(outputs - 1):
            kind = self.kinds[names[self.made % len(names)]]
            self.made += 1
            share = 0 if not kind.spendable else self.dice.randrange(0, amount // 2)
            amount -= share
            paid.append((kind, share))
        signable = [kind for kind in self.kinds.values() if kind.descriptor]
        paid.append((self.dice.choice(signable), amount))
        return self.transaction(spends, paid, lock_time=self.dice.choice([0, 0, 0, height - 1, START_TIME - 86_400]))

    def mine(self, transactions: tuple[Transaction, ...] = ()) -> Block:
        """One block on the tip, its coinbase to each type in its turn."""
        self.time += BLOCK_INTERVAL + self.dice.randrange(-300, 300)
        self.node.rpc("setmocktime", self.time)
        spendable = [kind for kind in self.kinds.values() if kind.descriptor]
        kind = spendable[self.made % len(spendable)]
        self.made += 1
        descriptor = self.node.rpc("getdescriptorinfo", f"raw({kind.script.hex()})")["descriptor"]
        hash_ = self.node.rpc("generateblock", descriptor, [transaction.raw for transaction in transactions])["hash"]
        details = self.node.rpc("getblock", hash_, 1)
        height = details["height"]
        coinbase = Output(details["tx"][0], 0, SUBSIDY >> (height // HALVING_INTERVAL), kind, height, coinbase=True)
        block = Block(hash_, self.node.rpc("getblock", hash_, 0), transactions, coinbase)
        for transaction in transactions:
            self.unspent.update({(output.transaction, output.index): output for output in transaction.makes})
        for transaction in transactions:
            for output in transaction.spends:
                del self.unspent[output.transaction, output.index]
        self.unspent[coinbase.transaction, 0] = coinbase
        self.chain.append(block)
        return block

    def busy(self, count: int, most: int = 3) -> list[Block]:
        """Blocks with up to ``most`` payments each, every fifth empty."""
        blocks = []
        for _ in range(count):
            taken: set[Output] = set()
            payments = [
                self.payment(taken, self.dice.choice([1, 1, 2, 3]), self.dice.choice([2, 3, 4]))
                for _ in range(self.dice.randrange(1, most + 1) if len(self.chain) % 5 else 0)
            ]
            blocks.append(self.mine(tuple(payment for payment in payments if payment)))
        return blocks

    def undo(self, count: int) -> list[Block]:
        """Takes the last blocks off the active chain, here and at the node."""
        undone = self.chain[-count:]
        del self.chain[-count:]
        self.node.rpc("invalidateblock", undone[0].hash)
        for block in reversed(undone):
            del self.unspent[block.coinbase.transaction, 0]
            for transaction in block.transactions:
                for output in transaction.spends:
                    self.unspent[output.transaction, output.index] = output
            for transaction in block.transactions:
                for output in transaction.makes:
                    self.unspent.pop((output.transaction, output.index), None)
        return undone

    def reorg(self, depth: int) -> list[Block]:
        """The tip loses ``depth`` blocks to a branch one longer, which holds the same payments but those of the last block."""
        undone = self.undo(depth)
        blocks = [self.mine(block.transactions) for block in undone[:-1]]
        blocks += [self.mine(), self.mine()]
        self.node.rpc("reconsiderblock", undone[0].hash)
        return blocks
