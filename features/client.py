"""A user of Wess, by its three public doors: NATS, HTTP and the command line."""

import asyncio
import json
import os
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import nats

ROOT = Path(__file__).resolve().parent.parent
GUEST_FOLDERS = ("guests/out", "guests/typed", "guests/plugin", "guests/component", "guests/http", "guests/hostile")
PATIENCE_S = 60


@dataclass
class Answer:
    """What came back, whichever door it came by. Header names are lower case."""

    door: str
    body: bytes
    headers: dict = field(default_factory=dict)
    status: int = 200

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def failed(self):
        return self.status >= 400

    @property
    def error(self):
        """The `code`, `message` and `detail` of a refusal: a problem document's own members, or what `error` holds."""
        return self.json if self.door == "HTTP" else self.json["error"]


def guest_file(name):
    """The file of the guest that goes by this name: built from C, or WAT text."""
    stem = name.replace("-", "_")
    for folder in GUEST_FOLDERS:
        for suffix in ("wasm", "wat"):
            file = ROOT / folder / f"{stem}.{suffix}"
            if file.exists():
                return file
    raise AssertionError(f"no guest is called {name}; has guests/build run?")


class Wess:
    def __init__(self, nats_url, http_url):
        self.http_url = http_url
        self.loop = asyncio.new_event_loop()
        self.nats = self.wait(nats.connect(nats_url, max_reconnect_attempts=0))

    def wait(self, awaitable):
        return self.loop.run_until_complete(asyncio.wait_for(awaitable, PATIENCE_S))

    def close(self):
        self.wait(self.nats.close())
        self.loop.close()

    def request(self, subject, payload=b"", headers=None):
        """One NATS request. A refusal is an answer with its status, not an exception."""
        reply = self.wait(self.nats.request(subject, payload, timeout=PATIENCE_S, headers=headers))
        found = {name.lower(): value for name, value in (reply.headers or {}).items()}
        return Answer("NATS", reply.data, found, int(found.get("nats-service-error-code", 200)))

    def requests(self, subject, payloads):
        """The same request many times at once; the answers' bodies."""

        async def all_at_once():
            calls = [self.nats.request(subject, payload, timeout=PATIENCE_S) for payload in payloads]
            return [reply.data for reply in await asyncio.gather(*calls)]

        return self.wait(all_at_once())

    def http(self, method, path, body=None, headers=None):
        """One HTTP request. A refusal is an answer with its status, not an exception."""
        headers = {"Content-Type": "application/octet-stream", **(headers or {})}
        request = urllib.request.Request(self.http_url + path, data=body, method=method, headers=headers)
        try:
            reply = urllib.request.urlopen(request, timeout=PATIENCE_S)
        except urllib.error.HTTPError as refusal:
            reply = refusal
        with reply:
            found = {name.lower(): value for name, value in reply.headers.items()}
            return Answer("HTTP", reply.read(), found, reply.status)

    def call(self, door, reference, payload, headers=None, function=None):
        """The raw form: the guest's input as it is, the guest's output as it is."""
        if door == "NATS":
            target = f"{reference}.{function}" if function else reference
            return self.request(f"wess.invoke.{target}", payload, headers)
        path = f"invoke/{urllib.parse.quote(function, safe='')}" if function else "invoke"
        return self.http("POST", f"/v1/modules/{reference}/{path}", payload, headers)

    def serve(self, door, reference, path, payload):
        """An HTTP request to a module that serves them."""
        if door == "NATS":
            return self.request(f"wess.http.{reference}", payload, {"Wess-Http-Path": path})
        return self.http("POST", f"/v1/http/{reference}{path}", payload or None)

    def send(self, door, endpoint, document):
        """The JSON form; `endpoint` is `invoke` or `chain`."""
        if door == "NATS":
            return self.request(f"wess.{endpoint}", document)
        return self.http("POST", f"/v1/{endpoint}", document, {"Content-Type": "application/json"})

    def store(self, door, name, wasm):
        if door == "NATS":
            return self.request("wess.store", wasm, {"Wess-Module": name})
        return self.http("POST", f"/v1/modules?name={name}", wasm, {"Content-Type": "application/wasm"})

    def cli(self, *arguments, stdin=b""):
        """The same question by the command line, answered in JSON. A job that failed is an answer, not a refusal."""
        done = self.command(*arguments, "--output", "json", stdin=stdin)
        return Answer("CLI", done.stdout or done.stderr, status=200 if done.stdout else 400)

    def submit(self, door, document, key=None):
        if door == "NATS":
            return self.request("wess.jobs.submit", document, {"Nats-Msg-Id": key} if key else None)
        if door == "HTTP":
            headers = {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}
            return self.http("POST", "/v1/jobs", document, headers)
        return self.cli("jobs", "submit", "--job", "-", stdin=document)

    def job(self, question, door, job_id):
        """`question` is `get`, `wait` or `cancel`."""
        if door == "NATS":
            return self.request(f"wess.jobs.{question}.{job_id}")
        if door == "HTTP":
            method = "DELETE" if question == "cancel" else "GET"
            return self.http(method, f"/v1/jobs/{job_id}" + ("/wait" if question == "wait" else ""))
        return self.cli("jobs", question, job_id)

    def dead(self, question, door, job_id):
        """`question` is `get`, `redrive` or `purge`."""
        if door == "HTTP":
            method = {"get": "GET", "redrive": "POST", "purge": "DELETE"}[question]
            return self.http(method, f"/v1/dead/{job_id}" + ("/redrive" if question == "redrive" else ""))
        if door == "CLI":
            return self.cli("dead", question, job_id)
        if question == "purge":
            return self.request("wess.dead.purge", json.dumps({"job_id": job_id}).encode())
        return self.request(f"wess.dead.{question}.{job_id}")

    def bind(self, door, name, binding):
        document = json.dumps(binding).encode()
        if door == "NATS":
            return self.request(f"wess.bindings.put.{name}", document)
        if door == "HTTP":
            return self.http("PUT", f"/v1/bindings/{name}", document, {"Content-Type": "application/json"})
        source = [binding["subject"]] if "subject" in binding else ["--stream", binding["stream"]]
        flags = ["--publish-to", binding["publish_to"]] if "publish_to" in binding else []
        return self.cli("bind", *source, binding["module"], "--name", name, *flags)

    def bindings(self, door):
        if door == "NATS":
            return self.request("wess.bindings.list")
        return self.http("GET", "/v1/bindings") if door == "HTTP" else self.cli("bindings")

    def unbind(self, door, name):
        if door == "NATS":
            return self.request(f"wess.bindings.delete.{name}")
        return self.http("DELETE", f"/v1/bindings/{name}") if door == "HTTP" else self.cli("unbind", name)

    def list_jobs(self, door, module, limit, after=None):
        wanted = {"module": module, "limit": limit, **({"after": after} if after else {})}
        if door == "NATS":
            return self.request("wess.jobs.list", json.dumps(wanted).encode())
        if door == "HTTP":
            return self.http("GET", f"/v1/jobs?{urllib.parse.urlencode(wanted)}")
        return self.cli("jobs", "ls", *(f"--{name}={value}" for name, value in wanted.items()))

    def list_dead(self, door):
        if door == "NATS":
            return self.request("wess.dead.list")
        return self.http("GET", "/v1/dead") if door == "HTTP" else self.cli("dead", "ls")

    def command(self, *arguments, stdin=b"", patience_s=PATIENCE_S):
        """The `wess` command, which finds the server by WESS_NATS_URL."""
        binary = os.environ.get("WESS_BIN", "wess")
        return subprocess.run([binary, *arguments], input=stdin, capture_output=True, timeout=patience_s, check=False)

    def store_guest(self, guest, name):
        """Stores a guest by the command line, which takes WAT as well, and insists that it worked."""
        done = self.command("store", name, str(guest_file(guest)))
        assert done.returncode == 0, done.stderr.decode()
