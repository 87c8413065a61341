"""What the Python scripts beside it share: LXD's API over the unix socket with the standard library alone, and TAP lines.

Environment as for the shell scripts: see steps.sh."""
import base64
import http.client
import json
import os
import socket
import struct
import sys
import threading

DIRECTORY = os.environ["LXD_DIR"]
IMAGE = os.environ["IMAGE"]
PREFIX = os.environ["PREFIX"]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self):
        super().__init__("localhost", timeout=60)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.path.join(DIRECTORY, "unix.socket"))


def request(method, path, body=None, headers=None):
    """Returns (HTTP status, decoded JSON or bytes)."""
    connection = UnixConnection()
    try:
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.getheader("Content-Type", "").startswith("application/json"):
            return answer.status, json.loads(content)
        return answer.status, content
    finally:
        connection.close()


def operation(method, path, body=None):
    """Starts an operation and waits for it. Returns the operation at its end."""
    status, answer = request(method, path, body)
    if status != 202:
        raise RuntimeError(f"{method} {path}: {status} {answer}")
    status, answer = request("GET", answer["operation"] + "/wait")
    if answer["metadata"]["status_code"] != 200:
        raise RuntimeError(f"{method} {path}: {answer['metadata']['err']}")
    return answer["metadata"]


class WebSocket:
    """A client of RFC 6455, as far as exec needs one."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(os.path.join(DIRECTORY, "unix.socket"))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.reader = self.socket.makefile("rb")
        status = self.reader.readline().decode()
        if " 101 " not in status:
            raise RuntimeError(f"websocket {path}: {status}")
        while self.reader.readline().strip():
            pass

    def send(self, opcode, payload):
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:
            head = struct.pack("!BB", 0x80 | opcode, 0x80 | length)
        elif length < 65536:
            head = struct.pack("!BBH", 0x80 | opcode, 0xFE, length)
        else:
            head = struct.pack("!BBQ", 0x80 | opcode, 0xFF, length)
        body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(head + mask + body)

    def receive(self):
        """Returns (opcode, payload); opcode 8 at the end."""
        head = self.reader.read(2)
        if len(head) < 2:
            return 8, b""
        opcode, length = head[0] & 15, head[1] & 127
        if length == 126:
            (length,) = struct.unpack("!H", self.reader.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.reader.read(8))
        payload = self.reader.read(length)
        if opcode == 9:
            try:
                self.send(10, payload)
            except OSError:
                pass  # a server that has ended meanwhile needs no answer
            return self.receive()
        return opcode, payload

    def read_to_end(self):
        """Output up to the barrier (an empty text message) or the close."""
        parts = []
        while True:
            opcode, payload = self.receive()
            if opcode == 8 or (opcode == 1 and not payload):
                return b"".join(parts)
            parts.append(payload)

    def close(self):
        try:
            self.send(8, struct.pack("!H", 1000))
        except OSError:
            pass
        self.reader.close()
        self.socket.close()


def in_threads(*works):
    results = [None] * len(works)

    def run(index):
        results[index] = works[index]()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def ok(name, actual, expected):
    if actual == expected:
        print(f"ok - {name}")
    else:
        print(f"not ok - {name}\n  expected: {expected!r}\n  actual:   {actual!r}")
    sys.stdout.flush()


def skip(name, reason):
    print(f"ok - {name} # SKIP {reason}")


def remove(name):
    status, _ = request("GET", f"/1.0/instances/{name}")
    if status == 404:
        return
    try:
        operation("PUT", f"/1.0/instances/{name}/state", {"action": "stop", "force": True, "timeout": 30})
    except RuntimeError:
        pass
    operation("DELETE", f"/1.0/instances/{name}")
