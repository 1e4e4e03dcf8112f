"""The cryptography, all of it from the package `cryptography`; each function for one purpose.

Every key and every signature is bound to a purpose, to the session's digest, and to whom it
concerns, so that nothing made for one place can be used in another.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Literal

from hanse.core.errors import ConfigError, ProtocolError

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise ConfigError(
        "secure aggregation without the package cryptography",
        why="its key exchange, signatures and ciphers come from there",
        instead="pip install 'hanse[secagg]'",
    ) from error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext

KEY = 32  # bytes of every key and secret
SIGNATURE = 64
TAG = 16  # bytes that sealing adds

_LABEL = b"hanse secagg 1 "
# Each key seals one message in its life, so the nonce need not differ.
_NONCE = bytes(12)


# ------------------------------------------------------------------------------ key agreement
class KeyPair:
    """An X25519 key for one session.

    Attributes:
        public: 32 bytes.
        private: 32 bytes that `erase` overwrites. The library's own copy goes when the object does;
            Python cannot promise that no other copy is left in memory.
    """

    def __init__(self, private: bytearray | None = None) -> None:
        """A fresh key from the operating system, or the one of a private key of 32 bytes."""
        self.private = bytearray(os.urandom(KEY)) if private is None else private
        self._key: X25519PrivateKey | None = X25519PrivateKey.from_private_bytes(self.private)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The secret shared with whoever has the private key of `public`.

        Raises:
            ProtocolError: a point of small order, with which the secret would be zero, whatever the
                private key.
        """
        if self._key is None:
            raise ProtocolError(
                "a key that has been erased",
                why="keys are used in one session, and gone after it",
                instead="a new session",
            )
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise ProtocolError(
                f"a public key of small order, {public.hex()}",
                why="the secret shared with it is zero for everybody, so everybody knows it",
                instead="a key made by KeyPair()",
            ) from error

    def erase(self) -> None:
        """Overwrite the private key, and let go of the library's copy."""
        self.private[:] = bytes(len(self.private))
        self._key = None


# Nobody's secret: it only shows which public keys are of small order.
_ANY = KeyPair(bytearray(range(KEY)))


def is_usable(public: bytes) -> bool:
    """Whether a public key has 32 bytes and is not of small order."""
    try:
        return len(public) == KEY and bool(_ANY.agree(public))
    except ProtocolError:
        return False


def derive(
    secret: bytes | bytearray,
    purpose: Literal["channel", "mask", "self mask", "commitment"],
    digest: bytes,
    *clients: int,
) -> bytes:
    """32 bytes from a secret, for one purpose of one session and these clients (HKDF-SHA256).

    Args:
        secret: 32 bytes, from `KeyPair.agree` or random.
        purpose: what they are for.
        digest: the session's.
        clients: whom they concern: places in the cohort, in an order that means something.
    """
    info = _LABEL + purpose.encode() + struct.pack(f"<{len(clients)}I", *clients)
    return HKDF(SHA256(), KEY, digest, info).derive(bytes(secret))


# -------------------------------------------------------------------------------- signatures
def new_identity() -> Ed25519PrivateKey:
    """A client's long-lived key; the registry has its public half."""
    return Ed25519PrivateKey.generate()


def sign(
    key: Ed25519PrivateKey, purpose: Literal["keys", "survivors"], digest: bytes, data: bytes
) -> bytes:
    """64 bytes by which a client says `data`, for one purpose of one session."""
    return key.sign(_LABEL + purpose.encode() + digest + data)


def is_signed(
    public: bytes,
    signature: bytes,
    purpose: Literal["keys", "survivors"],
    digest: bytes,
    data: bytes,
) -> bool:
    """Whether whoever has the private key of `public` signed this."""
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, _LABEL + purpose.encode() + digest + data)
    except (InvalidSignature, ValueError):
        return False
    return True


# ---------------------------------------------------------------------------------- sealing
def seal(key: bytes, plain: bytes, digest: bytes) -> bytes:
    """Encrypt and authenticate the one message of a key that `derive` made for it."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, digest)


def unseal(key: bytes, sealed: bytes, digest: bytes) -> bytes | None:
    """What was sealed, or `None` where it was not, or not with this key."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, digest)
    except (InvalidTag, ValueError):
        return None


def stream(seed: bytes) -> CipherContext:
    """A keystream by AES-128 in counter mode; all 32 bytes of the seed decide it.

    16 are the key, and 16 the first counter.
    """
    return Cipher(algorithms.AES128(seed[:16]), modes.CTR(seed[16:])).encryptor()
