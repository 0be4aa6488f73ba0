// What every scenario does to Wess over HTTP, and how it judges the answers. The server is WESS_HTTP.
import encoding from "k6/encoding";
import exec from "k6/execution";
import http from "k6/http";
import { check, fail, randomSeed } from "k6";

const HTTP = __ENV.WESS_HTTP || "http://127.0.0.1:8080";
const UPPER = open("../guests/out/upper.wasm", "b");
const JSON_BODY = { headers: { "Content-Type": "application/json" } };
// (module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))
const ADD = new Uint8Array(encoding.b64decode("AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags="));

// The same seed, the same draws of `mixed` for each caller.
if (__ENV.WESS_SEED) randomSeed(Number(__ENV.WESS_SEED) + __VU);

// A refusal that we asked for is no failed request.
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 299 }, 404, 422));

export const NOTHING_FAILS = { checks: ["rate==1"], http_req_failed: ["rate==0"] };

function store(name, wasm) {
  return http.post(`${HTTP}/v1/modules?name=${name}`, wasm, {
    headers: { "Content-Type": "application/wasm" },
    tags: { name: "store" },
  });
}

// Stores what the scenarios call; a scenario exports it as its `setup`.
export function prepare() {
  for (const [name, wasm] of [["load-upper", UPPER], ["load-add", ADD.buffer]]) {
    const stored = store(name, wasm);
    if (stored.status >= 300) fail(`cannot store ${name}: ${stored.status} ${stored.body}`);
  }
}

export function callRaw() {
  const answer = http.post(`${HTTP}/v1/modules/load-upper/invoke`, "hello", { tags: { name: "raw" } });
  check(answer, { "raw: HELLO": (a) => a.status === 200 && a.body === "HELLO" });
}

export function callJson() {
  const [a, b] = [exec.vu.idInTest, exec.vu.iterationInScenario % 1_000_000];
  const body = JSON.stringify({ module: "load-add", args: [a, b] });
  const answer = http.post(`${HTTP}/v1/invoke`, body, { ...JSON_BODY, tags: { name: "json" } });
  check(answer, { "json: the sum": (got) => got.status === 200 && got.json("results.0") === a + b });
}

export function makeMistakes() {
  const missing = http.post(`${HTTP}/v1/modules/load-nobody/invoke`, "hello", { tags: { name: "missing" } });
  check(missing, { "missing: its code": (a) => a.status === 404 && a.json("code") === "module_not_found" });
  const wrong = http.post(`${HTTP}/v1/invoke`, '{"module":"load-add","args":["two",3]}', {
    ...JSON_BODY,
    tags: { name: "wrong args" },
  });
  check(wrong, { "wrong args: its code": (a) => a.status === 422 && a.json("code") === "invalid_arguments" });
}

// `add` with a custom section that holds `label`: other bytes, another digest, the same answers.
function addLabelled(label) {
  const name = Array.from(label, (letter) => letter.charCodeAt(0));
  const section = [0, name.length + 1, name.length, ...name];
  return new Uint8Array([...ADD, ...section]).buffer;
}

// A module's whole life: stored, called, deleted.
export function liveAndDie() {
  const name = `load-${exec.vu.idInTest}-${exec.vu.iterationInInstance}`;
  const stored = store(name, addLabelled(name));
  check(stored, { "store: version 1": (a) => a.status < 300 && a.json("version") === 1 });
  const answer = http.post(`${HTTP}/v1/modules/${name}/invoke/add`, "[2,3]", { tags: { name: "first call" } });
  check(answer, { "first call: the sum": (a) => a.status === 200 && a.body === "5" });
  const gone = http.del(`${HTTP}/v1/modules/${name}`, null, { tags: { name: "delete" } });
  check(gone, { "delete: gone": (a) => a.status < 300 });
}

// What a day looks like: mostly calls, some mistakes, now and then a new module.
export function mixed() {
  const draw = Math.random();
  if (draw < 0.6) callRaw();
  else if (draw < 0.9) callJson();
  else if (draw < 0.98) makeMistakes();
  else liveAndDie();
}

// For scenarios past capacity: the right answer, or a refusal with its code; never a wrong answer, never silence.
export function callOrBeRefused() {
  const answer = http.post(`${HTTP}/v1/modules/load-upper/invoke`, "hello", {
    tags: { name: "raw" },
    responseCallback: http.expectedStatuses(200, 503),
  });
  check(answer, {
    "HELLO, or overloaded": (a) =>
      (a.status === 200 && a.body === "HELLO") || (a.status === 503 && a.json("code") === "overloaded"),
  });
}
