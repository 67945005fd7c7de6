"""The nexlet's curve key: what an environment is sealed to, and how a sealed one is opened.

A `CurveKey` is an X25519 key pair in the texts of NATS: the public key begins with `X`, the seed with `SX`, both base32
of a prefix, the key and a CRC-16. A sealed message is `xkv1`, a nonce of 24 bytes and a NaCl box (nkeys' `xkeys`). The
key is kept in a file, so that what was sealed to it outlives a restart; nexlets that are given the same file can open
each other's environments, which is what lets a clone of a workload start elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

import nacl.exceptions
import nacl.public
import nacl.utils
from pydantic import SecretStr

from nexlet_functions.errors import KeyUnusable
from nexlet_functions.functions.private_files import create_private

__all__ = ["CannotOpen", "CurveKey", "public_key_problem"]

_SEED = 18 << 3  # base32 shows it as S
_CURVE = 23 << 3  # base32 shows it as X
_VERSION = b"xkv1"
_NONCE = nacl.public.Box.NONCE_SIZE
_TAG = 16  # bytes of Poly1305, what a box adds to the message


class CannotOpen(Exception):
    """A sealed message that this key does not open; the text says why, and has nothing of the content."""


class CurveKey:
    """An X25519 key pair.

    Attributes:
        public: the public key as text, beginning with X. This and nothing else is what `repr` shows.
    """

    __slots__ = ("_private", "public")

    def __init__(self, seed: bytes) -> None:
        """From 32 bytes of seed. Use `generate`, `from_seed` or `load`.

        Raises:
            ValueError: `seed` has another length.
        """
        if len(seed) != nacl.public.PrivateKey.SIZE:
            raise ValueError("the seed of a curve key has 32 bytes")
        self._private = nacl.public.PrivateKey(seed)
        self.public = _encode(bytes([_CURVE]) + bytes(self._private.public_key))

    def __repr__(self) -> str:
        return f"CurveKey({self.public})"

    @classmethod
    def generate(cls) -> CurveKey:
        """A new one."""
        return cls(nacl.utils.random(nacl.public.PrivateKey.SIZE))

    @classmethod
    def from_seed(cls, text: SecretStr) -> CurveKey:
        """From the text that begins with `SX`.

        Raises:
            KeyUnusable: that is no curve seed, or it is damaged. The text itself is not repeated.
        """
        try:
            raw = _decode(text.get_secret_value().strip())
        except ValueError as error:
            raise KeyUnusable(f"the curve seed cannot be read: {error}; it is the text that begins with SX") from None
        # Two bytes share the two prefixes: five bits of S, eight bits of the kind, three unused.
        kind = (raw[0] & 7) << 5 | (raw[1] & 0xF8) >> 3 if len(raw) > 1 else 0
        if len(raw) != 34 or raw[0] & 0xF8 != _SEED or kind != _CURVE:
            raise KeyUnusable("this is no curve seed: one begins with SX (nk -gen x makes one)")
        return cls(raw[2:])

    def seed(self) -> SecretStr:
        """The text that begins with `SX`, from which `from_seed` makes the key again."""
        header = bytes([_SEED | _CURVE >> 5, (_CURVE & 31) << 3])
        return SecretStr(_encode(header + bytes(self._private)))

    @classmethod
    def load(cls, path: Path) -> tuple[CurveKey, bool]:
        """The key kept at `path`, made there (mode 0600) where there is none yet; and whether it was made now.

        Raises:
            KeyUnusable: the file cannot be read or written, others may read it, or it holds no curve seed.
        """
        new = cls.generate()
        try:
            made = not path.exists() and create_private(path, (new.seed().get_secret_value() + "\n").encode())
            if made:
                return new, True
            text = _read_private(path)
        except OSError as error:
            raise KeyUnusable(
                f"the curve key at {path} cannot be used: {error.strerror or error}; "
                "name a file that the nexlet may read, or may make, with --xkey-file"
            ) from error
        try:
            return cls.from_seed(text), False
        except KeyUnusable as error:
            raise KeyUnusable(f"the curve key at {path} cannot be used: {error}") from None

    def seal(self, data: bytes, recipient: str) -> bytes:
        """`data` so that only the holder of the public key `recipient` can read it, and knows that it came from us.

        Raises:
            ValueError: `recipient` is no public curve key.
        """
        nonce = nacl.utils.random(_NONCE)
        box = nacl.public.Box(self._private, _public(recipient))
        return _VERSION + nonce + box.encrypt(data, nonce).ciphertext

    def open(self, sealed: bytes, sender: str) -> bytes:
        """What `sender` sealed to this key.

        Raises:
            CannotOpen: it is not sealed like that, was sealed to another key or by another sender, or was changed.
        """
        if not sealed.startswith(_VERSION):
            raise CannotOpen("it does not begin with xkv1, as what is sealed with a curve key does")
        if len(sealed) < len(_VERSION) + _NONCE + _TAG:
            raise CannotOpen("it is cut short")
        try:
            peer = _public(sender)
        except ValueError as error:
            raise CannotOpen(f"the sender's key is unusable: {error}") from None
        start = len(_VERSION)
        try:
            return nacl.public.Box(self._private, peer).decrypt(
                sealed[start + _NONCE :], sealed[start : start + _NONCE]
            )
        except nacl.exceptions.CryptoError:
            raise CannotOpen("it was sealed to another key, by another sender, or was changed on the way") from None


def public_key_problem(text: str) -> str | None:
    """Why `text` is no public curve key; None where it is one."""
    try:
        _public(text)
    except ValueError as error:
        return str(error)
    return None


def _public(text: str) -> nacl.public.PublicKey:
    raw = _decode(text)
    if len(raw) != 33 or raw[0] != _CURVE:
        raise ValueError("a public curve key begins with X and has 56 characters")
    return nacl.public.PublicKey(raw[1:])


def _encode(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")  # CRC-16/XMODEM, as nkeys has it
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _decode(text: str) -> bytes:
    """What `_encode` was given.

    Raises:
        ValueError: not base32, or the checksum is another one.
    """
    try:
        raw = base64.b32decode(text.encode() + b"=" * (-len(text) % 8))
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("it is not base32") from None
    if len(raw) < 3 or binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise ValueError("its checksum does not match, so a character is wrong or missing")
    return raw[:-2]


def _read_private(path: Path) -> SecretStr:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        # A group may read it: secrets that Kubernetes or systemd mount come so. The world may not.
        if mode & stat.S_IRWXO:
            raise KeyUnusable(f"the curve key at {path} can be read by everybody: chmod 600 {path}")
        return SecretStr(file.read(4096).decode("ascii", "replace"))
