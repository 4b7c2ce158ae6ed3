"""Run every harness over its seeds and a fixed number of mutations of them: the same ones each time.

    python fuzz/smoke.py [--rounds N] [--only NAME] [FILE ...]

With files (a crash that Atheris has written, say) those are the inputs instead.  Exit status 1 = something was found.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
HARNESSES = ("fuzz_url", "fuzz_fields", "fuzz_grammar", "fuzz_metalink", "fuzz_decoding", "fuzz_proxy", "fuzz_response")
ROUNDS = 3000
LONGEST = 1 << 16
# What is told apart in URLs, fields and responses, and the numbers at which something overflows.
TOKENS = b"\r\n|\n|\r|\0|\r\n\r\n|\t| |:|;|,|=|\"|\\|/|//|..|%|%2f|%00|@|?|#|[|]|::|*|'|-|+|0x|\x0b|\x1b|\x7f|\xff"
TOKENS += b"|\xc3\xa9|\xe2\x80\xae|0|1|9|f|0\r\n\r\n|5\r\nhello\r\n|4096|2147483648|ffffffffffffffff"
TOKENS += b"|9223372036854775807|9223372036854775808|chunked|close|HTTP/1.1 |HTTP/1.0 |100|103|204|304|http://"
TOKENS += b"|Content-Length: |Transfer-Encoding: |bytes |UTF-8''"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="mutations per harness (%(default)s)")
    parser.add_argument("--only", choices=HARNESSES, help="one harness")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="inputs to try instead")
    args = parser.parse_args()
    found = 0
    for name in [args.only] if args.only else HARNESSES:
        harness = import_module(name)
        inputs = (path.read_bytes() for path in args.files) if args.files else inputs_from(harness.SEEDS, args.rounds)
        found += run(name, harness.check, inputs)
    print("nothing was found" if not found else f"FOUND: {found} inputs break an invariant")
    return 1 if found else 0


def run(name: str, check: Callable[[bytes], None], inputs: Iterator[bytes]) -> int:
    """Return how many inputs break the invariant, each of which is shown."""
    count = found = 0
    began = time.monotonic()
    for count, data in enumerate(inputs, 1):  # noqa: B007 - counted
        try:
            check(data)
        except Exception:
            found += 1
            print(f"{name} breaks with {data!r}\n{traceback.format_exc(limit=-4)}")
    print(f"{name}: {count} inputs, {found} found, {time.monotonic() - began:.1f} s")
    return found


def inputs_from(seeds: tuple[bytes, ...], rounds: int) -> Iterator[bytes]:
    """Yield the seeds, each with its end cut off, and so many mutations."""
    yield from seeds
    yield from (seed[: len(seed) // 2] for seed in seeds)
    rng = random.Random(rounds)
    tokens = TOKENS.split(b"|")
    for _ in range(rounds):
        yield mutated(rng, seeds, tokens)


def mutated(rng: random.Random, seeds: tuple[bytes, ...], tokens: list[bytes]) -> bytes:
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data = data[:at] + rng.choice(tokens) + data[at:]
            case 1:
                data = data[:at] + rng.choice(tokens) + data[at + rng.randrange(1, 9) :]
            case 2:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 3:
                other = rng.choice(seeds)
                data = data[:at] + other[rng.randrange(len(other)) :]
            case 4:
                data = data[:at] + data[at : at + rng.randrange(1, 20)] * rng.choice((0, 2, 3, 50)) + data[at + 20 :]
            case _:
                flipped = bytearray(data or b"\0")
                flipped[at % len(flipped)] ^= 1 << rng.randrange(8)
                data = bytes(flipped)
    return data[:LONGEST]


if __name__ == "__main__":
    sys.exit(main())
