"""The end point of Kubeflow Trainer's controller that takes a TrainJob's status, on this machine, over TLS.

with Controller(tmp_path) as controller:
    controller.variables    # what its pods find in their environment
    controller.told         # [(seconds, token, trainerStatus), …]
"""

import json
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rigs.kubernetes_api import STATUS_REQUEST, problems

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/resnet/status"


class Controller:
    def __init__(self, folder: Path, answer: int = 200, silent: bool = False):
        self.told, self.wrong, self.answer, self.silent = [], [], answer, silent
        self.token, self.certificate, key = folder / "token", folder / "ca.crt", folder / "key"
        self.token.write_text("first\n")
        made = (
            f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=it -keyout {key}"
        )
        made += f" -out {self.certificate} -addext subjectAltName=IP:127.0.0.1"
        subprocess.run(["openssl", *made.split()], check=True, capture_output=True)
        controller = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_POST(self):
                controller.take(self)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        url = f"https://127.0.0.1:{self.server.server_address[1]}{PATH}"
        values = {"URL": url, "CA_CERT": str(self.certificate), "TOKEN": str(self.token)}
        self.variables = {f"KUBEFLOW_TRAINER_SERVER_{name}": value for name, value in values.items()}

    def take(self, request):
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        self.wrong += problems(body, STATUS_REQUEST) + ([] if request.path == PATH else [request.path])
        token = request.headers["Authorization"]
        self.told.append((time.monotonic(), token, body["trainerStatus"]))
        if self.silent:
            time.sleep(1)
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.send_response(self.answer)
        request.end_headers()

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
