// Five callers, suddenly five hundred, then five again. The crowd may be refused with a code; those after it may not.
import { callOrBeRefused, callRaw, prepare } from "./wess.js";

export const options = {
  scenarios: {
    crowd: {
      executor: "ramping-vus",
      exec: "crowd",
      startVUs: 5,
      stages: [
        { duration: "10s", target: 5 },
        { duration: "2s", target: 500 },
        { duration: "20s", target: 500 },
        { duration: "2s", target: 5 },
      ],
      gracefulRampDown: "10s",
    },
    afterwards: { executor: "constant-vus", exec: "afterwards", vus: 5, duration: "15s", startTime: "50s" },
  },
  thresholds: {
    checks: ["rate==1"],
    "http_req_failed{scenario:afterwards}": ["rate==0"],
    "http_req_duration{scenario:afterwards}": ["p(95)<200"],
  },
};

export { prepare as setup };
export const crowd = callOrBeRefused;
export const afterwards = callRaw;
