"""What was seen before, in 8 bytes each, whatever its size."""

import hashlib


def is_new(content: bytes, seen: set[bytes]) -> bool:
    """Return whether a content was not seen before, and remember it.

    Args:
        content: two that differ have the same 8 bytes of BLAKE2b once in 2^64.
        seen: those of all that were seen; it is changed.
    """
    key = hashlib.blake2b(content, digest_size=8).digest()
    if key in seen:
        return False
    seen.add(key)
    return True
