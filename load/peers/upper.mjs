// A responder as one writes it with nats.js: a callback that answers a service's requests in upper case.
// upper.mjs URL SUBJECT; prints `ready` once it answers. Packages: clients/js.
import { createRequire } from "node:module";

const need = createRequire(new URL("../../clients/js/package.json", import.meta.url));
const { connect } = need("@nats-io/transport-node");
const { Svcm } = need("@nats-io/services");

const [url, subject] = process.argv.slice(2);
const nc = await connect({ servers: url });
const service = await new Svcm(nc).add({ name: "upper", version: "1.0.0", queue: "upper" });
const text = new TextDecoder();
service.addEndpoint("upper", {
  subject,
  handler: (error, message) => {
    if (error) throw error;
    message.respond(text.decode(message.data).toUpperCase());
  },
});
await nc.flush();
console.log("ready");
process.on("SIGTERM", () => nc.drain());
await nc.closed();
