// An ordinary busy day: up to fifty callers, all kinds of requests, three minutes.
import { NOTHING_FAILS, mixed, prepare } from "./wess.js";

export const options = {
  stages: [
    { duration: "30s", target: 50 },
    { duration: "2m", target: 50 },
    { duration: "30s", target: 0 },
  ],
  thresholds: { ...NOTHING_FAILS, "http_req_duration{name:raw}": ["p(95)<100", "p(99)<250"] },
};

export { prepare as setup };
export default mixed;
