"""A web application that counts its visits, on a unix socket, with the standard library only.

On SIGTERM it stops accepting connections, closes those without a request, finishes the other requests and exits.
"""

import hashlib
import html
import os
import selectors
import signal
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler

NAME = os.environ["APP_NAME"]
SOCKET = os.environ["APP_SOCKET"]
DATA = os.environ["APP_DATA"]


class Visits:
    """A number in a file, written to a new file that is then renamed: the number survives a sleep, a crash and a full disk."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        try:
            with open(path, encoding="ascii") as file:
                self.count = int(file.read())
        except FileNotFoundError:
            self.count = 0

    def add(self):
        with self.lock:
            beside = self.path + ".new"
            with open(beside, "w", encoding="ascii") as file:
                file.write(f"{self.count + 1}\n")
            os.replace(beside, self.path)
            self.count += 1
            return self.count


VISITS = Visits(os.path.join(DATA, "visits"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "python-http"
    sys_version = ""
    wbufsize = -1  # Buffered: one write for headers and body.
    busy = False

    def setup(self):
        super().setup()
        self.server.enter(self)

    def finish(self):
        super().finish()
        self.server.leave(self)

    def parse_request(self):
        # Called when the first line of a request has arrived: from now on the request is finished even after SIGTERM.
        self.busy = True
        return super().parse_request()

    def handle_expect_100(self):
        known = super().handle_expect_100()
        self.wfile.flush()  # The client waits for this answer before it sends the body.
        return known

    def handle_one_request(self):
        super().handle_one_request()
        with self.server.lock:
            self.busy = False
            if self.server.stopping:
                self.close_connection = True

    def do_GET(self):
        if self.path == "/health":
            self.send_response(204)
            self.end_headers()
        elif self.path.split("?")[0] == "/":
            page = f"<!doctype html><title>{html.escape(NAME)}</title><h1>{html.escape(NAME)}</h1><p>Visits: {VISITS.add()}</p>\n"
            self.answer(200, "text/html; charset=utf-8", page)
        else:
            self.answer(404, "text/plain", "no such page\n")

    def do_POST(self):
        length, digest = 0, hashlib.sha256()
        for piece in self.body():
            length += len(piece)
            digest.update(piece)
        self.answer(200, "text/plain", f"{length} {digest.hexdigest()}\n")

    def body(self):
        """The body of the request, piece by piece."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield from self.pieces(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield from self.pieces(int(self.headers.get("Content-Length", 0)))

    def pieces(self, left):
        while left > 0:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def answer(self, status, kind, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.server.stopping:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def address_string(self):
        return "-"  # A client on a unix socket has no address.

    def log_message(self, *_):
        pass  # acc writes the access log.


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 1024  # Many requests may arrive at once right after the start.
    daemon_threads = False  # The exit waits until every answer was sent.
    timeout = 0

    def __init__(self, path):
        self.lock = threading.Lock()
        self.handlers = set()
        self.stopping = False
        if os.path.exists(path):
            os.unlink(path)  # Left over from an earlier run.
        super().__init__(path, Handler)

    def enter(self, handler):
        with self.lock:
            self.handlers.add(handler)
            if self.stopping:
                self.hang_up(handler)

    def leave(self, handler):
        with self.lock:
            self.handlers.discard(handler)

    def stop(self):
        """Closes connections that wait for the next request; a request that has already arrived is still read."""
        with self.lock:
            self.stopping = True
            for handler in self.handlers:
                if not handler.busy:
                    self.hang_up(handler)

    @staticmethod
    def hang_up(handler):
        try:
            handler.connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # The connection is already closed.

    def handle_error(self, request, client_address):
        pass  # A client that disconnects is not an error.


def main():
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server = Server(SOCKET)
    os.chmod(SOCKET, 0o666)  # The folder decides who may connect.
    with selectors.DefaultSelector() as waiting:
        waiting.register(server, selectors.EVENT_READ)
        waiting.register(told, selectors.EVENT_READ)
        while not any(key.fd == told for key, _ in waiting.select()):
            server.handle_request()
    server.socket.close()
    server.stop()
    server.server_close()  # Waits for the threads of all requests.


if __name__ == "__main__":
    main()
