#!/usr/bin/python3
"""ONNX models in the shape of well-known ones, with random weights: for the benchmarks and the tests, never checked in.

  make_model.py resnet18|vit-b16|chain OUT.onnx [--external NAME [--sparse]] [--seed N] [--width N] [--layers N]

ResNet-18 and ViT-B/16 as torchvision exports them (batch 1, 224 x 224; BatchNorm and Gelu left as they are for the runtime to
fuse). `chain`: LAYERS matrix products of WIDTH x WIDTH. --external puts the weights into a file of that name beside OUT,
each at a multiple of 4096; --sparse makes them zeros that take no room. Written with the protobuf wire format of onnx.proto3; no onnx package is needed.
"""
import argparse
import pathlib
import struct

import numpy as np

FLOAT, INT64 = 1, 7
ALIGN = 4096


def varint(v):
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    out.append(v)
    return bytes(out)


def num(field, v):
    return varint(field << 3) + varint(v & (1 << 64) - 1)


def blob(field, v):
    v = v.encode() if isinstance(v, str) else v
    return b"".join((varint(field << 3 | 2), varint(len(v)), v))


def attribute(name, v):
    if isinstance(v, float):
        return blob(1, name) + varint(2 << 3 | 5) + struct.pack("<f", v) + num(20, 1)
    if isinstance(v, int):
        return blob(1, name) + num(3, v) + num(20, 2)
    return blob(1, name) + b"".join(num(8, x) for x in v) + num(20, 7)


def value_info(name, dims):
    shape = b"".join(blob(1, num(1, d)) for d in dims)
    return blob(1, name) + blob(2, blob(1, num(1, FLOAT) + blob(2, shape)))


class Model:
    """Nodes and initializers, in order. external: a file object that takes the weights, and the name it has."""

    def __init__(self, seed, external=None, external_name=None, sparse=False):
        self.sparse = sparse
        self.rng = np.random.default_rng(seed)
        self.nodes, self.inits, self.count = [], [], 0
        self.external, self.external_name = external, external_name

    def op(self, kind, *inputs, out=None, **attributes):
        self.count += 1
        out = out or f"t{self.count}"
        outs = out if isinstance(out, (list, tuple)) else [out]
        self.nodes.append(b"".join([*(blob(1, i) for i in inputs), *(blob(2, o) for o in outs), blob(3, f"n{self.count}"),
                                    blob(4, kind), *(blob(5, attribute(k, v)) for k, v in attributes.items())]))
        return out

    def tensor(self, array, kind=FLOAT):
        name = f"w{len(self.inits)}"
        head = b"".join(num(1, d) for d in array.shape) + num(2, kind) + blob(8, name)
        if self.external is None or kind != FLOAT:
            self.inits.append(head + blob(9, array.tobytes()))
            return name
        self.external.seek(-self.external.tell() % ALIGN, 1)
        pairs = {"location": self.external_name, "offset": self.external.tell(), "length": array.nbytes}
        if self.sparse:
            self.external.seek(array.nbytes, 1)
        else:
            self.external.write(array.tobytes())
        self.inits.append(head + b"".join(blob(13, blob(1, k) + blob(2, str(v))) for k, v in pairs.items()) + num(14, 1))
        return name

    def weight(self, *shape, scale):
        if self.sparse:
            return self.tensor(np.broadcast_to(np.float32(0), shape))
        return self.tensor(self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def full(self, n, value=0.0, spread=0.02):
        return self.tensor((value + spread * self.rng.standard_normal(n)).astype(np.float32))

    def ints(self, *v):
        return self.tensor(np.array(v, dtype=np.int64), INT64)

    def scalar(self, v):
        return self.tensor(np.array(v, dtype=np.float32))

    def write(self, path, inputs, outputs):
        graph = b"".join([*(blob(1, n) for n in self.nodes), blob(2, "g"), *(blob(5, i) for i in self.inits),
                          *(blob(11, value_info(*i)) for i in inputs), *(blob(12, value_info(*o)) for o in outputs)])
        path.write_bytes(b"".join([num(1, 8), blob(7, graph), blob(8, blob(1, "") + num(2, 17))]))


# ---- ResNet-18 ----

def conv_bn(m, x, cin, cout, k, stride):
    pad = k // 2
    y = m.op("Conv", x, m.weight(cout, cin, k, k, scale=(2 / (cin * k * k)) ** 0.5), kernel_shape=[k, k], strides=[stride, stride],
             pads=[pad] * 4, dilations=[1, 1], group=1)
    return m.op("BatchNormalization", y, m.full(cout, 0.7), m.full(cout), m.full(cout),
                m.tensor(np.abs(1 + 0.1 * m.rng.standard_normal(cout)).astype(np.float32)), epsilon=1e-5)


def block(m, x, cin, cout, stride):
    y = m.op("Relu", conv_bn(m, x, cin, cout, 3, stride))
    y = conv_bn(m, y, cout, cout, 3, 1)
    short = x if cin == cout and stride == 1 else conv_bn(m, x, cin, cout, 1, stride)
    return m.op("Relu", m.op("Add", y, short))


def resnet18(m, args):
    c = 16 if args.small else 64
    x = m.op("Relu", conv_bn(m, "input", 3, c, 7, 2))
    x = m.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    cin = c
    for cout, stride in ((c, 1), (2 * c, 2), (4 * c, 2), (8 * c, 2)):
        x = block(m, block(m, x, cin, cout, stride), cout, cout, 1)
        cin = cout
    x = m.op("Flatten", m.op("GlobalAveragePool", x), axis=1)
    m.op("Gemm", x, m.weight(1000, 8 * c, scale=(8 * c) ** -0.5), m.full(1000), transB=1, out="logits")
    return [("input", (1, 3, 224, 224))], [("logits", (1, 1000))]


# ---- ViT-B/16 ----

def linear(m, x, cin, cout):
    return m.op("Add", m.op("MatMul", x, m.weight(cin, cout, scale=cin ** -0.5)), m.full(cout))


def norm(m, x, d):
    return m.op("LayerNormalization", x, m.full(d, 1.0), m.full(d), axis=-1, epsilon=1e-6)


def attention(m, x, d, heads, tokens):
    size = d // heads
    qkv = m.op("Split", linear(m, x, d, 3 * d), out=[f"{x}_q", f"{x}_k", f"{x}_v"], axis=2)
    shape = m.ints(1, tokens, heads, size)
    q, k, v = (m.op("Transpose", m.op("Reshape", t, shape), perm=p)
               for t, p in zip(qkv, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])))
    a = m.op("Softmax", m.op("Mul", m.op("MatMul", q, k), m.scalar(size ** -0.5)), axis=-1)
    y = m.op("Transpose", m.op("MatMul", a, v), perm=[0, 2, 1, 3])
    return linear(m, m.op("Reshape", y, m.ints(1, tokens, d)), d, d)


def gelu(m, x):
    erf = m.op("Erf", m.op("Div", x, m.scalar(2 ** 0.5)))
    return m.op("Mul", m.op("Mul", x, m.op("Add", erf, m.scalar(1.0))), m.scalar(0.5))


def vit_b16(m, args):
    d, heads, tokens, blocks = (192, 3, 197, 2) if args.small else (768, 12, 197, 12)
    x = m.op("Conv", "input", m.weight(d, 3, 16, 16, scale=768 ** -0.5), m.full(d), kernel_shape=[16, 16], strides=[16, 16],
             pads=[0] * 4, dilations=[1, 1], group=1)
    x = m.op("Transpose", m.op("Reshape", x, m.ints(1, d, 196)), perm=[0, 2, 1])
    x = m.op("Concat", m.weight(1, 1, d, scale=0.02), x, axis=1)
    x = m.op("Add", x, m.weight(1, tokens, d, scale=0.02))
    for _ in range(blocks):
        x = m.op("Add", x, attention(m, norm(m, x, d), d, heads, tokens))
        x = m.op("Add", x, linear(m, gelu(m, linear(m, norm(m, x, d), d, 4 * d)), 4 * d, d))
    x = m.op("Gather", norm(m, x, d), m.tensor(np.array(0, dtype=np.int64), INT64), axis=1)
    m.op("Gemm", x, m.weight(1000, d, scale=d ** -0.5), m.full(1000), transB=1, out="logits")
    return [("input", (1, 3, 224, 224))], [("logits", (1, 1000))]


def chain(m, args):
    x, w = "input", args.width
    for i in range(args.layers):
        x = m.op("MatMul", x, m.weight(w, w, scale=w ** -0.5), out="logits" if i + 1 == args.layers else None)
    return [("input", (1, w))], [("logits", (1, w))]


KINDS = {"resnet18": resnet18, "vit-b16": vit_b16, "chain": chain}


def make(kind, path, args):
    path = pathlib.Path(path)
    if args.external is None:
        m = Model(args.seed)
        m.write(path, *KINDS[kind](m, args))
        return
    with open(path.parent / args.external, "wb") as f:
        m = Model(args.seed, f, args.external, args.sparse)
        m.write(path, *KINDS[kind](m, args))
        f.truncate()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    p.add_argument("kind", choices=KINDS)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--external", metavar="NAME", help="keep the weights in this file beside OUT")
    p.add_argument("--sparse", action="store_true", help="with --external: zeros, as a hole")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--small", action="store_true", help="ResNet-18 and ViT of a quarter of the width, the latter of two blocks")
    p.add_argument("--width", type=int, default=64, help="of a chain (default 64)")
    p.add_argument("--layers", type=int, default=4, help="of a chain (default 4)")
    args = p.parse_args()
    make(args.kind, args.out, args)


if __name__ == "__main__":
    main()
