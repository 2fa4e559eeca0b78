"""ChaCha20-Poly1305 (RFC 8439) and AES-256-GCM (FIPS 197, SP 800-38D) in plain Python.

For the independent reader only: clear, slow, and not constant-time. Run as a program it checks
itself against the published examples.
"""
import struct


class TagError(Exception):
    pass


# ---- ChaCha20-Poly1305 ----

def _quarter(s, a, b, c, d):
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    x = s[d] ^ s[a]
    s[d] = ((x << 16) | (x >> 16)) & 0xFFFFFFFF
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    x = s[b] ^ s[c]
    s[b] = ((x << 12) | (x >> 20)) & 0xFFFFFFFF
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    x = s[d] ^ s[a]
    s[d] = ((x << 8) | (x >> 24)) & 0xFFFFFFFF
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    x = s[b] ^ s[c]
    s[b] = ((x << 7) | (x >> 25)) & 0xFFFFFFFF


def _chacha_block(key_words, counter, nonce_words):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *key_words, counter, *nonce_words]
    s = list(start)
    for _ in range(10):
        _quarter(s, 0, 4, 8, 12)
        _quarter(s, 1, 5, 9, 13)
        _quarter(s, 2, 6, 10, 14)
        _quarter(s, 3, 7, 11, 15)
        _quarter(s, 0, 5, 10, 15)
        _quarter(s, 1, 6, 11, 12)
        _quarter(s, 2, 7, 8, 13)
        _quarter(s, 3, 4, 9, 14)
    return struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(s, start)))


def _xor(data, stream):
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream[:len(data)], "big")).to_bytes(
        len(data), "big")


def _chacha(key, nonce, counter, data):
    kw, nw = struct.unpack("<8I", key), struct.unpack("<3I", nonce)
    blocks = (len(data) + 63) // 64
    return _xor(data, b"".join(_chacha_block(kw, counter + i, nw) for i in range(blocks)))


def _poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    s = int.from_bytes(key[16:], "little")
    acc = 0
    for i in range(0, len(message), 16):
        acc = (acc + int.from_bytes(message[i:i + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((acc + s) & (2**128 - 1)).to_bytes(16, "little")


def _chacha_tag(key, nonce, aad, ct):
    def padded(b):
        return b + bytes(-len(b) % 16)
    otk = _chacha_block(struct.unpack("<8I", key), 0, struct.unpack("<3I", nonce))[:32]
    return _poly1305(otk, padded(aad) + padded(ct) + struct.pack("<QQ", len(aad), len(ct)))


def chacha20_poly1305_open(key, nonce, aad, sealed):
    ct, tag = sealed[:-16], sealed[-16:]
    if len(sealed) < 16 or _chacha_tag(key, nonce, aad, ct) != tag:
        raise TagError
    return _chacha(key, nonce, 1, ct)


def chacha20_poly1305_seal(key, nonce, aad, plain):
    ct = _chacha(key, nonce, 1, plain)
    return ct + _chacha_tag(key, nonce, aad, ct)


# ---- AES-256-GCM ----

def _xtime(a):
    return ((a << 1) ^ 0x1B) & 0xFF if a & 0x80 else a << 1


def _make_sbox():
    # FIPS 197 §5.1.1: inverse in GF(2^8), then the affine map; inverses by walking the group of 3
    box, p, q = [0] * 256, 1, 1
    while True:
        p ^= _xtime(p)
        q ^= (q << 1) & 0xFF
        q ^= (q << 2) & 0xFF
        q ^= (q << 4) & 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q
        for k in (1, 2, 3, 4):
            x ^= ((q << k) | (q >> (8 - k))) & 0xFF
        box[p] = x ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return box


_SBOX = _make_sbox()
_X2 = [_xtime(i) for i in range(256)]
_SHIFT = [0, 5, 10, 15, 4, 9, 14, 3, 8, 13, 2, 7, 12, 1, 6, 11]


def _aes256_schedule(key):
    words = [key[i:i + 4] for i in range(0, 32, 4)]
    rcon = 1
    for i in range(8, 60):
        t = words[-1]
        if i % 8 == 0:
            t = bytes([_SBOX[t[1]] ^ rcon, _SBOX[t[2]], _SBOX[t[3]], _SBOX[t[0]]])
            rcon = _xtime(rcon)
        elif i % 8 == 4:
            t = bytes(_SBOX[b] for b in t)
        words.append(bytes(a ^ b for a, b in zip(words[-8], t)))
    return [b"".join(words[4 * r:4 * r + 4]) for r in range(15)]


def _aes_block(schedule, block):
    s = [a ^ b for a, b in zip(block, schedule[0])]
    for rnd in range(1, 15):
        s = [_SBOX[s[i]] for i in _SHIFT]
        if rnd < 14:
            out = []
            for c in range(0, 16, 4):
                a, b, d, e = s[c:c + 4]
                out += [_X2[a] ^ _X2[b] ^ b ^ d ^ e, a ^ _X2[b] ^ _X2[d] ^ d ^ e,
                        a ^ b ^ _X2[d] ^ _X2[e] ^ e, _X2[a] ^ a ^ b ^ d ^ _X2[e]]
            s = out
        s = [a ^ b for a, b in zip(s, schedule[rnd])]
    return bytes(s)


def _ghash_table(h):
    """table[i][b]: (byte b at position i of the block) times h."""
    def times_x(v):
        return (v >> 1) ^ (0xE1 << 120 if v & 1 else 0)
    powers, v = [], h
    for _ in range(128):
        powers.append(v)
        v = times_x(v)
    table = []
    for i in range(16):
        row = [0] * 256
        for b in range(256):
            acc = 0
            for k in range(8):
                if b >> (7 - k) & 1:
                    acc ^= powers[8 * i + k]
            row[b] = acc
        table.append(row)
    return table


def _gcm_parts(key, nonce, aad, ct):
    sched = _aes256_schedule(key)
    table = _ghash_table(int.from_bytes(_aes_block(sched, bytes(16)), "big"))
    y = 0
    for part in (aad, ct):
        for i in range(0, len(part), 16):
            y ^= int.from_bytes(part[i:i + 16].ljust(16, b"\0"), "big")
            acc = 0
            for k, b in enumerate(y.to_bytes(16, "big")):
                acc ^= table[k][b]
            y = acc
    y ^= (8 * len(aad)) << 64 | 8 * len(ct)
    acc = 0
    for k, b in enumerate(y.to_bytes(16, "big")):
        acc ^= table[k][b]
    return sched, _xor(acc.to_bytes(16, "big"), _aes_block(sched, nonce + b"\0\0\0\1"))


def _gcm_ctr(sched, nonce, data):
    blocks = (len(data) + 15) // 16
    return _xor(data, b"".join(_aes_block(sched, nonce + struct.pack(">I", i + 2))
                               for i in range(blocks)))


def aes_256_gcm_open(key, nonce, aad, sealed):
    ct, tag = sealed[:-16], sealed[-16:]
    if len(sealed) < 16:
        raise TagError
    sched, expected = _gcm_parts(key, nonce, aad, ct)
    if expected != tag:
        raise TagError
    return _gcm_ctr(sched, nonce, ct)


def aes_256_gcm_seal(key, nonce, aad, plain):
    ct = _gcm_ctr(_aes256_schedule(key), nonce, plain)
    return ct + _gcm_parts(key, nonce, aad, ct)[1]


OPEN = {"chacha20-poly1305": chacha20_poly1305_open, "aes-256-gcm": aes_256_gcm_open}
SEAL = {"chacha20-poly1305": chacha20_poly1305_seal, "aes-256-gcm": aes_256_gcm_seal}


def self_test():
    # RFC 8439 §2.8.2
    key = bytes(range(0x80, 0xA0))
    nonce = bytes.fromhex("070000004041424344454647")
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plain = (b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
             b"future, sunscreen would be it.")
    sealed = chacha20_poly1305_seal(key, nonce, aad, plain)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    assert chacha20_poly1305_open(key, nonce, aad, sealed) == plain
    # The GCM specification's test cases 13, 14 and 16
    assert aes_256_gcm_seal(bytes(32), bytes(12), b"", b"").hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert aes_256_gcm_seal(bytes(32), bytes(12), b"", bytes(16)).hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    sealed = aes_256_gcm_seal(
        key, bytes.fromhex("cafebabefacedbaddecaf888"),
        bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
        bytes.fromhex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                      "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"))
    assert sealed[-16:].hex() == "76fc6ece0f4e1768cddf8853bb2d551b"
    for opener in OPEN.values():
        try:
            opener(bytes(32), bytes(12), b"", bytes(32))
        except TagError:
            continue
        raise AssertionError("a wrong tag was accepted")


if __name__ == "__main__":
    self_test()
    print("ciphers: ok")
