"""libtensorguard through ctypes: the library as a foreign program sees it, and its socket spoken to by hand."""
import ctypes as c
import socket
import struct

import programs

PATH = programs.BUILD / "src" / "client" / "libtensorguard.so"
SECOND = 1_000_000_000


class Error(c.Structure):
    _fields_ = [("status", c.c_int), ("text", c.c_char * 512)]


class Options(c.Structure):
    _fields_ = [("size", c.c_size_t), ("slots", c.c_uint32), ("open_bytes", c.c_size_t), ("spin_ns", c.c_uint64),
                ("reconnect_ns", c.c_uint64), ("no_lock", c.c_int)]


class Tensor(c.Structure):
    _fields_ = [("name", c.c_char_p), ("type", c.c_int), ("n_dims", c.c_size_t), ("dims", c.c_int64 * 16),
                ("bytes", c.c_size_t)]


class WeightInfo(c.Structure):
    _fields_ = [("type", c.c_char * 16), ("n_dims", c.c_size_t), ("dims", c.c_int64 * 16), ("bytes", c.c_uint64)]


class Info(c.Structure):
    _fields_ = [("name", c.c_char_p), ("version", c.c_char_p), ("sequence", c.c_uint64),
                ("package", c.POINTER(c.c_uint8)), ("can_run", c.c_int), ("can_take", c.c_int)]


def _load():
    lib = c.CDLL(str(PATH))
    returns = {
        c.c_char_p: ["tg_status_name", "tg_library_version"],
        c.c_void_p: ["tg_call_input", "tg_call_output"],
        c.c_size_t: ["tg_model_inputs", "tg_model_outputs", "tg_call_output_shape"],
        c.POINTER(Tensor): ["tg_model_input", "tg_model_output"],
        Info: ["tg_model_info"],
    }
    for kind, names in returns.items():
        for name in names:
            getattr(lib, name).restype = kind
    return lib


LIB = _load()


class Failed(Exception):
    def __init__(self, error):
        self.status = LIB.tg_status_name(error.status).decode()
        self.text = error.text.decode()
        super().__init__(f"{self.status}: {self.text}")


def check(status, error):
    if status != 0:
        assert status == error.status
        raise Failed(error)


class Model:
    def __init__(self, path, **options):
        self.path, self.p, e = str(path), c.c_void_p(), Error()
        o = Options(size=c.sizeof(Options), **options)
        check(LIB.tg_model_connect(str(path).encode(), c.byref(o), c.byref(self.p), c.byref(e)), e)

    @property
    def info(self):
        return LIB.tg_model_info(self.p)

    @property
    def version(self):
        return self.info.version.decode()

    def inputs(self):
        return [LIB.tg_model_input(self.p, c.c_size_t(i)).contents for i in range(LIB.tg_model_inputs(self.p))]

    def outputs(self):
        return [LIB.tg_model_output(self.p, c.c_size_t(i)).contents for i in range(LIB.tg_model_outputs(self.p))]

    def begin(self):
        call, e = Call(), Error()
        check(LIB.tg_call_begin(self.p, c.byref(call.p), c.byref(e)), e)
        return call

    def run(self, shape, values, timeout=30 * SECOND):
        """One call of a model with one FP32 input and output: (shape, values)."""
        call = self.begin()
        try:
            call.shape(0, shape)
            call.write(0, struct.pack(f"<{len(values)}f", *values))
            call.submit()
            call.wait(timeout)
            return call.output_shape(0), call.floats(0)
        finally:
            call.end()

    def files(self):
        found, e = [], Error()
        path, size = c.create_string_buffer(1025), c.c_uint64()
        while LIB.tg_model_file(self.p, c.c_size_t(len(found)), path, c.c_size_t(1025), c.byref(size), c.byref(e)) == 0:
            found.append((path.value.decode(), size.value))
        if LIB.tg_status_name(e.status) != b"NOTFOUND":
            raise Failed(e)
        return found

    def open_file(self, path):
        fd, e = c.c_int(-1), Error()
        check(LIB.tg_model_open_file(self.p, path.encode(), c.byref(fd), c.byref(e)), e)
        return fd.value

    def open_tensor(self, path, name):
        fd, info, e = c.c_int(-1), WeightInfo(), Error()
        check(LIB.tg_model_open_tensor(self.p, path.encode(), name.encode(), c.byref(fd), c.byref(info), c.byref(e)), e)
        return fd.value, info.type.decode(), list(info.dims[:info.n_dims])

    def close(self):
        LIB.tg_model_close(self.p)
        self.p = c.c_void_p()


class Call:
    def __init__(self):
        self.p = c.c_void_p()

    def address(self, i):
        return LIB.tg_call_input(self.p, c.c_size_t(i))

    def write(self, i, data):
        c.memmove(self.address(i), data, len(data))

    def shape(self, i, dims):
        e = Error()
        check(LIB.tg_call_shape(self.p, c.c_size_t(i), (c.c_int64 * len(dims))(*dims), c.c_size_t(len(dims)), c.byref(e)), e)

    def submit(self):
        e = Error()
        check(LIB.tg_call_submit(self.p, c.byref(e)), e)

    def wait(self, timeout=30 * SECOND):
        e = Error()
        check(LIB.tg_call_wait(self.p, c.c_uint64(timeout), c.byref(e)), e)

    def output_shape(self, i):
        dims = (c.c_int64 * 16)()
        return list(dims[:LIB.tg_call_output_shape(self.p, c.c_size_t(i), dims)])

    def output(self, i):
        n = c.c_size_t()
        at = LIB.tg_call_output(self.p, c.c_size_t(i), c.byref(n))
        return None if at is None else c.string_at(at, n.value)

    def floats(self, i):
        data = self.output(i)
        return list(struct.unpack(f"<{len(data) // 4}f", data))

    def end(self):
        LIB.tg_call_end(self.p)


# ---- the protocol by hand (docs/spec/native-1.0.md), for clients that do what they should not ----

MAGIC, HELLO, RING, LIST, TAKE, WELCOME, RING_MADE, FILES, TAKEN, REFUSED = 0x314e4754, 1, 2, 3, 4, 5, 6, 7, 8, 9


def message(kind, body):
    return struct.pack("<IIII", MAGIC, kind, 16 + len(body), 0) + body


class Bare:
    """A connection without the library."""

    def __init__(self, path, hello=True):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30)
        self.socket.connect(str(path))
        if hello:
            assert self.ask(HELLO, struct.pack("<II", 1, 1))[0] == WELCOME

    def send(self, kind, body):
        self.socket.send(message(kind, body))

    def receive(self):
        """(kind, body, descriptors); kind None when the worker hung up."""
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, 1 << 17, 4)
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            return None, b"", []
        return struct.unpack_from("<IIII", data)[1], data[16:], fds

    def ask(self, kind, body):
        self.send(kind, body)
        return self.receive()

    def ring(self, slots, rooms):
        body = struct.pack("<II", slots, len(rooms)) + struct.pack(f"<{len(rooms)}Q", *rooms)
        return self.ask(RING, body.ljust(8 + 128 * 8, b"\0"))

    def hung_up(self):
        return self.receive()[0] is None

    def close(self):
        self.socket.close()
