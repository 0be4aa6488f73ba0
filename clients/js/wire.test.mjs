// The wire contract, seen by nats.js: call, store, read errors, discover. Takes the server from WESS_NATS.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { ServiceError, Svcm } from "@nats-io/services";
import { connect, headers } from "@nats-io/transport-node";

const UPPER = new URL("../../guests/out/upper.wasm", import.meta.url);
// (module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
const ADD = "AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=";
const PATIENCE_MS = 30_000;

let nc;

before(async () => {
  nc = await connect({ servers: process.env.WESS_NATS });
  const named = headers();
  named.set("Wess-Module", "js-upper");
  await accepted("wess.store", await readFile(UPPER), named);
  await accepted("wess.store", JSON.stringify({ name: "js-add", wasm_base64: ADD }));
});

after(() => nc?.close());

function request(subject, payload, sent) {
  return nc.request(subject, payload, { timeout: PATIENCE_MS, headers: sent });
}

async function accepted(subject, payload, sent) {
  const reply = await request(subject, payload, sent);
  assert.equal(ServiceError.isServiceError(reply), false, reply.string());
  return reply;
}

async function refused(subject, payload, code, status) {
  const reply = await request(subject, payload);
  const error = ServiceError.toServiceError(reply);
  assert.equal(error?.code, status, reply.string());
  assert.ok(error.message);
  assert.equal(reply.json().error.code, code);
}

async function collect(answers) {
  const found = [];
  for await (const answer of await answers) found.push(answer);
  return found;
}

test("an invocation as JSON", async () => {
  const outcome = (await accepted("wess.invoke", '{"module":"js-add","args":[2,3]}')).json();
  assert.deepEqual(outcome.results, [5]);
  assert.equal(outcome.module.name, "js-add");
});

test("raw bytes to a module", async () => {
  const reply = await accepted("wess.invoke.js-upper", "hello");
  assert.equal(reply.string(), "HELLO");
  assert.equal(reply.headers, undefined);
});

test("raw bytes to a function", async () => {
  const reply = await accepted("wess.invoke.js-add.add", "[20,22]");
  assert.equal(reply.string(), "42");
});

test("a chain", async () => {
  const chain = JSON.stringify({ steps: ["js-upper", "js-upper"], input: "hello" });
  const outcome = (await accepted("wess.chain", chain)).json();
  assert.equal(outcome.output, "HELLO");
  assert.equal(outcome.steps.length, 2);
});

test("errors are service errors with our codes", async () => {
  await refused("wess.invoke", '{"module":"js-nobody"}', "module_not_found", 404);
  await refused("wess.invoke", "not json", "invalid_request", 400);
  await refused("wess.invoke.js-add", "[1]", "invalid_arguments", 422);
  await refused("wess.store", '{"name":"js-bad","wasm_base64":"aGVsbG8="}', "invalid_module", 422);
});

test("the discovery client finds the service and its endpoints", async () => {
  const client = new Svcm(nc).client({ strategy: "stall", maxWait: 2_000 });
  const pings = await collect(client.ping("wess"));
  const [info] = await collect(client.info("wess"));
  const [stats] = await collect(client.stats("wess"));

  assert.ok(pings.length >= 1);
  assert.equal(info.name, "wess");
  const subjects = info.endpoints.map((endpoint) => endpoint.subject);
  for (const subject of ["wess.invoke", "wess.chain", "wess.store"]) assert.ok(subjects.includes(subject), subject);
  assert.ok(pings.some((ping) => ping.id === info.id));
  assert.ok(stats.endpoints.every((endpoint) => Number.isInteger(endpoint.num_requests)));
});

test("many calls at once on one connection", async () => {
  const words = Array.from({ length: 200 }, (_, number) => `caller ${number}`);
  const replies = await Promise.all(words.map((word) => accepted("wess.invoke.js-upper", word)));
  assert.deepEqual(replies.map((reply) => reply.string()), words.map((word) => word.toUpperCase()));
});
