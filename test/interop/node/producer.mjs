// A producer that knows docs/WIRE.md: publishes one event for each argument, its
// hostname, and prints a line of JSON for each acknowledgement.
//
//	NATS_URL=… node producer.mjs web-1 web-2
import { randomBytes } from "node:crypto";
import { connect, headers } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { encode, projection, uuid7 } from "./wire.mjs";

const subject = "dv.maskin.evt.server.provisioned";
const stream = "DV_MASKIN_EVT";

// build makes the event and its headers.
function build(hostname) {
  const envelope = {
    specversion: "1.0",
    id: uuid7(),
    type: "maskin.server.provisioned",
    source: "maskin",
    subject: `server/${hostname}`,
    time: new Date().toISOString(),
    datacontenttype: "application/json",
    dataschema: "urn:dataverket:schema:maskin.server.provisioned:v1",
    tenant_id: "tenant-42",
    actor: "user:42",
    correlation_id: uuid7(),
    data: { hostname },
    x_from: "node", // a field that no reader knows yet
  };
  const traceId = randomBytes(16).toString("hex");
  const h = headers();
  const travelling = { traceparent: `00-${traceId}-${randomBytes(8).toString("hex")}-01`, "trace-id": traceId, "Dv-Site": "osl1" };
  for (const [name, value] of Object.entries({ ...projection(envelope), ...travelling })) h.set(name, value);
  return { envelope, h };
}

// publish repeats with the same message id until the outcome is known.
async function publish(js, envelope, h) {
  for (let attempt = 1; ; attempt++) {
    try {
      const ack = await js.publish(subject, encode(envelope), { headers: h, timeout: 5000 });
      if (ack.stream !== stream) throw new Error(`stored in ${ack.stream} and not in ${stream}`);
      return ack;
    } catch (error) {
      if (attempt === 10 || error.message.startsWith("stored in")) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
    }
  }
}

const nc = await connect({ servers: process.env.NATS_URL });
const js = jetstream(nc);
for (const hostname of process.argv.slice(2)) {
  const { envelope, h } = build(hostname);
  await publish(js, envelope, h);
  // Once more, as after an acknowledgement that was lost.
  const again = await publish(js, envelope, h);
  console.log(JSON.stringify({
    id: envelope.id, hostname, time: envelope.time, correlation: envelope.correlation_id,
    traceparent: h.get("traceparent"), sequence: again.seq, duplicate: again.duplicate,
  }));
}
await nc.drain();
