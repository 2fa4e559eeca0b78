"""An ONNX model taken apart: its initializers out, and in their place what says where they are."""
import struct

TYPES = {1: ("F32", 4), 7: ("I64", 8)}


def varint(v):
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    return bytes(out) + bytes([v])


def blob(field, v):
    return varint(field << 3 | 2) + varint(len(v)) + v


def fields(message):
    """(field, wire type, value, the field's own bytes)"""
    at = 0

    def number():
        nonlocal at
        v = shift = 0
        while True:
            b = message[at]
            at += 1
            v |= (b & 0x7F) << shift
            shift += 7
            if b < 0x80:
                return v
    while at < len(message):
        begin = at
        key = number()
        kind = key & 7
        if kind == 0:
            value = number()
        else:
            n = {1: 8, 5: 4}.get(kind) or number()
            value = message[at:at + n]
            at += n
        yield key >> 3, kind, value, message[begin:at]


def tensor(message):
    """A TensorProto with raw or typed data as (name, ONNX type, dims, packed bytes)."""
    name, kind, dims, raw = "", 0, [], b""
    for field, wire, value, _ in fields(message):
        if field == 1 and wire == 0:
            dims.append(value)
        elif field == 1:
            at = value
            while at:
                v = shift = 0
                while True:
                    b, at = at[0], at[1:]
                    v |= (b & 0x7F) << shift
                    shift += 7
                    if b < 0x80:
                        break
                dims.append(v)
        elif field == 2:
            kind = value
        elif field == 8:
            name = value.decode()
        elif field in (4, 9):
            raw += value if wire == 2 else struct.pack("<I", value)
    return name, kind, tuple(dims), raw


def split(model, location=None):
    """(the model without the data of its initializers, those as (name, type, shape, bytes)). location: leave each declared,
    as data in that file; None: leave nothing of them."""
    out, found = b"", []
    for field, _, value, whole in fields(model):
        if field != 7:
            out += whole
            continue
        graph = b""
        for inner, _, init, kept in fields(value):
            if inner != 5:
                graph += kept
                continue
            name, kind, dims, raw = tensor(init)
            found.append((name, TYPES[kind][0], dims, raw))
            if location is not None:
                entry = blob(1, b"location") + blob(2, location.encode())
                graph += blob(5, b"".join(varint(1 << 3) + varint(d) for d in dims) + varint(2 << 3) + varint(kind)
                              + blob(8, name.encode()) + blob(13, entry) + varint(14 << 3) + varint(1))
        out += blob(7, graph)
    return out, found
