// More calls than two cores can answer, in steps. Refusals are fine, wrong answers and silence are not; and when the
// pressure is gone, nothing fails any more.
import { callOrBeRefused, callRaw, prepare } from "./wess.js";

export const options = {
  scenarios: {
    pressure: {
      executor: "ramping-arrival-rate",
      exec: "pressure",
      startRate: 1000,
      timeUnit: "1s",
      preAllocatedVUs: 500,
      maxVUs: 2000,
      stages: [
        { duration: "30s", target: 5000 },
        { duration: "30s", target: 15000 },
        { duration: "30s", target: 30000 },
      ],
      gracefulStop: "10s",
    },
    relief: { executor: "constant-vus", exec: "relief", vus: 5, duration: "20s", startTime: "105s" },
  },
  thresholds: {
    checks: ["rate==1"],
    "http_req_failed{scenario:relief}": ["rate==0"],
    "http_req_duration{scenario:pressure}": ["p(99)<5000"],
    "http_req_duration{scenario:relief}": ["p(95)<200"],
  },
};

export { prepare as setup };
export const pressure = callOrBeRefused;
export const relief = callRaw;
