// Twenty callers for as long as WESS_SOAK says (30 minutes untold): what grows, leaks or slows down?
import { NOTHING_FAILS, mixed, prepare } from "./wess.js";

export const options = {
  vus: 20,
  duration: __ENV.WESS_SOAK || "30m",
  thresholds: { ...NOTHING_FAILS, "http_req_duration{name:raw}": ["p(95)<100", "p(99)<250"] },
};

export { prepare as setup };
export default mixed;
