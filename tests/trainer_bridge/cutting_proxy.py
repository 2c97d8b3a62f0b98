"""cutting_proxy.py - between a Python client and a server: cuts connections at bytes that the test chooses."""
import os
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "trainer_bridge", "python"))
from drumroll_client.wire import _connect_once  # noqa: E402


class Proxy:
    """Lets `budgets` bytes of each connection in turn pass, both directions together, then closes it without a word;
    None: all of them."""

    def __init__(self, path, address, budgets):
        self.cuts = 0
        self._address, self._budgets = address, budgets
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(8)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            near, _ = self._listening.accept()
            far, left, lock = _connect_once(self._address), [next(self._budgets)], threading.Lock()
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(*pair, left, lock), daemon=True).start()

    def _pass(self, source, sink, left, lock):
        try:
            while True:
                data = source.recv(4096)
                with lock:
                    if left[0] is not None:
                        data, left[0] = data[:left[0]], left[0] - len(data[:left[0]])
                    over = left[0] == 0
                sink.sendall(data)
                if over:
                    self.cuts += 1
                if over or not data:
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
