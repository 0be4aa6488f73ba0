// The load of load/flamegraph: so many requests in flight over one connection, until it is told to stop.
// ask.mjs URL SUBJECT IN_FLIGHT BYTES; prints `ready` after the first answers, and how many there were when it ends.
import { createRequire } from "node:module";

const need = createRequire(new URL("../../clients/js/package.json", import.meta.url));
const { connect, createInbox } = need("@nats-io/transport-node");

const [url, subject, inFlight, bytes] = process.argv.slice(2);
const nc = await connect({ servers: url });
const reply = createInbox();
const payload = new Uint8Array(Number(bytes)).fill("a".charCodeAt(0));
let answers = 0;
let stopping = false;

nc.subscribe(reply, {
  callback: (error, message) => {
    if (error || message.headers?.has("Nats-Service-Error-Code") || message.data[0] !== "A".charCodeAt(0)) {
      console.error("a wrong answer:", error ?? message.string());
      process.exit(1);
    }
    if (++answers === 10_000) console.log("ready");
    if (!stopping) nc.publish(subject, payload, { reply });
  },
});
for (let number = 0; number < Number(inFlight); number++) nc.publish(subject, payload, { reply });
process.on("SIGTERM", () => {
  stopping = true;
  nc.close();
});
process.on("SIGUSR2", () => console.log(`answers=${answers}`));
await nc.closed();
