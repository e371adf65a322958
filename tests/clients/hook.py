"""An operator's program that is called before and after a change of side, after docs/outages.md and Standard Webhooks.

    hook.py SECRET CALLS REFUSE PORT_FILE

Takes POSTs on 127.0.0.1. Each is one line of JSON in CALLS: path, id, whether the signature is right, body. One whose signature is wrong
is answered with 401; while the file REFUSE is there, those that come before anything happens with 503.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRET, CALLS, REFUSE, PORT_FILE = sys.argv[1:]
KEY = base64.b64decode(open(SECRET).readline().strip().removeprefix("whsec_"))


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        name, sent = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        said = b".".join([name.encode(), sent.encode(), body])
        right = "v1," + base64.b64encode(hmac.new(KEY, said, hashlib.sha256).digest()).decode()
        signed = hmac.compare_digest(right, self.headers["webhook-signature"]) and abs(time.time() - int(sent)) < 300
        call = {"path": self.path, "id": name, "signed": signed, "body": json.loads(body)}
        with open(CALLS, "a") as calls:
            calls.write(json.dumps(call) + "\n")
        is_refused = call["body"]["event"].startswith("before") and os.path.exists(REFUSE)
        self.send_response(401 if not signed else 503 if is_refused else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Hook)
with open(PORT_FILE + ".new", "w") as port:
    port.write(str(server.server_port))
os.rename(PORT_FILE + ".new", PORT_FILE)
server.serve_forever()
