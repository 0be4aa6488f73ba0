// Everything once a second or so by two callers for ten seconds: does it work at all? Part of scripts/test.
import { NOTHING_FAILS, callJson, callRaw, liveAndDie, makeMistakes, prepare } from "./wess.js";

export const options = {
  vus: 2,
  duration: "10s",
  thresholds: { ...NOTHING_FAILS, "http_req_duration{name:raw}": ["p(95)<200"], "http_req_duration{name:json}": ["p(95)<200"] },
};

export { prepare as setup };

export default function () {
  callRaw();
  callJson();
  makeMistakes();
  liveAndDie();
}
