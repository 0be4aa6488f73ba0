"""The wire contract, seen by nats-py: call, store, read errors, discover. Takes the server from WESS_NATS."""

import base64
import json
import os
import unittest
from pathlib import Path

import nats
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

GUESTS = Path(__file__).resolve().parents[2] / "guests" / "out"
UPPER = (GUESTS / "upper.wasm").read_bytes()
# (module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
ADD = "AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags="
PATIENCE_S = 30


class Wire(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.nc = await nats.connect(os.environ["WESS_NATS"])
        self.addAsyncCleanup(self.nc.close)
        await self.accepted("wess.store", UPPER, {"Wess-Module": "py-upper"})
        await self.accepted("wess.store", json.dumps({"name": "py-add", "wasm_base64": ADD}).encode())

    async def request(self, subject, payload=b"", headers=None):
        return await self.nc.request(subject, payload, timeout=PATIENCE_S, headers=headers)

    async def accepted(self, subject, payload=b"", headers=None):
        reply = await self.request(subject, payload, headers)
        self.assertNotIn("Nats-Service-Error", reply.headers or {}, reply.data)
        return reply

    async def refused(self, subject, payload, code, status):
        reply = await self.request(subject, payload)
        self.assertEqual(reply.headers["Nats-Service-Error-Code"], str(status), reply.data)
        self.assertTrue(reply.headers["Nats-Service-Error"])
        error = json.loads(reply.data)["error"]
        self.assertEqual(error["code"], code, error)
        self.assertIs(type(error["retryable"]), bool)
        self.assertIs(type(error["guest_ran"]), bool)
        return error

    async def discovered(self, verb, parse):
        """The answers of every service called wess to one discovery verb, parsed by nats-py itself."""
        inbox = self.nc.new_inbox()
        replies = await self.nc.subscribe(inbox)
        await self.nc.publish(f"$SRV.{verb}.wess", reply=inbox)
        first = await replies.next_msg(timeout=PATIENCE_S)
        await replies.unsubscribe()
        return parse(json.loads(first.data))

    async def test_invocation_as_json(self):
        reply = await self.accepted("wess.invoke", b'{"module":"py-add","args":[2,3]}')
        outcome = json.loads(reply.data)
        self.assertEqual(outcome["results"], [5])
        self.assertEqual(outcome["module"]["name"], "py-add")

    async def test_raw_bytes_to_a_module(self):
        bare = await self.accepted("wess.invoke.py-upper", b"hello")
        self.assertEqual((bare.data, bare.headers), (b"HELLO", None))
        reply = await self.accepted("wess.invoke.py-upper", b"hello", {"Wess-Facts": "all"})
        self.assertEqual(reply.data, b"HELLO")
        self.assertEqual(reply.headers["Wess-Exit-Code"], "0")
        self.assertRegex(reply.headers["Wess-Module-Digest"], "^sha256:[0-9a-f]{64}$")

    async def test_raw_bytes_to_a_function(self):
        reply = await self.accepted("wess.invoke.py-add.add", b"[20,22]")
        self.assertEqual(reply.data, b"42")

    async def test_a_version_and_a_digest_are_references_too(self):
        described = json.loads((await self.accepted("wess.modules.get.py-upper", b"{}")).data)
        for reference in (f"py-upper@{described['version']}", described["digest"], described["id"]):
            reply = await self.accepted(f"wess.invoke.{reference}", b"hello")
            self.assertEqual(reply.data, b"HELLO", reference)

    async def test_storing_the_same_bytes_again_makes_no_version(self):
        before = json.loads((await self.accepted("wess.modules.get.py-upper", b"{}")).data)
        body = {"name": "py-upper", "wasm_base64": base64.b64encode(UPPER).decode()}
        after = json.loads((await self.accepted("wess.store", json.dumps(body).encode())).data)
        self.assertEqual((after["id"], after["version"]), (before["id"], before["version"]))

    async def test_errors_are_read_from_headers_and_body(self):
        await self.refused("wess.invoke", b'{"module":"py-nobody"}', "module_not_found", 404)
        await self.refused("wess.invoke", b"not json", "invalid_request", 400)
        await self.refused("wess.invoke.py-add", b"[1]", "invalid_arguments", 422)
        await self.refused("wess.store", b'{"name":"py-bad","wasm_base64":"aGVsbG8="}', "invalid_module", 422)

    async def test_ping_info_and_stats(self):
        ping = await self.discovered("PING", ServicePing.from_dict)
        info = await self.discovered("INFO", ServiceInfo.from_dict)
        self.assertEqual((ping.name, info.name), ("wess", "wess"))
        subjects = {endpoint.subject for endpoint in info.endpoints}
        self.assertLessEqual({"wess.invoke", "wess.chain", "wess.store"}, subjects)
        self.assertTrue(all(endpoint.queue_group == "wess" for endpoint in info.endpoints))

        await self.accepted("wess.invoke", b'{"module":"py-add","args":[2,3]}')
        stats = await self.discovered("STATS", ServiceStats.from_dict)
        invoke = next(endpoint for endpoint in stats.endpoints if endpoint.subject == "wess.invoke")
        self.assertGreater(invoke.num_requests, 0)

    async def test_a_ping_without_a_reply_subject_harms_nobody(self):
        for verb in ("PING", "INFO", "STATS"):
            await self.nc.publish(f"$SRV.{verb}.wess")
        await self.nc.flush()
        self.assertEqual((await self.discovered("PING", ServicePing.from_dict)).name, "wess")


if __name__ == "__main__":
    unittest.main(verbosity=2)
