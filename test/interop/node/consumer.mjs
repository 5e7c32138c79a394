// A consumer that knows docs/WIRE.md: handles maskin.server.provisioned for the
// service plattform, and prints a line of JSON for each verdict. A hostname that
// begins with "busy" is handled at the second attempt, one that begins with
// "poison" never, until FIXED is set. It ends at SIGTERM.
//
//	NATS_URL=… node consumer.mjs
import { connect, headers } from "@nats-io/transport-node";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { contradiction, decode, letterId, Malformed, projected, projection, rfc3339, schemaVersion, uuid7 } from "./wire.mjs";

const service = "plattform";
const stream = "DV_MASKIN_EVT";
const durable = "plattform__from_maskin";
const letters = "DV_PLATTFORM_DLQ";
const ops = "DV_PLATTFORM_DLQOPS";
const handled = new Set(); // a service keeps these in its database, with the effect

const nc = await connect({ servers: process.env.NATS_URL });
const js = jetstream(nc);
const jsm = await jetstreamManager(nc);
const report = (verdict, more) => console.log(JSON.stringify({ verdict, ...more }));

// Refused carries the class of a dead letter.
class Refused extends Error {
  constructor(failure, text) {
    super(text);
    this.failure = failure;
  }
}

// headerMap returns the headers of a message as they are.
function headerMap(m) {
  return new Map((m.headers?.keys() ?? []).map((name) => [name, m.headers.values(name)]));
}

// handle applies one envelope, or throws.
function handle(envelope, attempt) {
  const key = `${envelope.source} ${envelope.id}`;
  if (handled.has(key)) return "duplicate";
  if (envelope.type !== "maskin.server.provisioned" || schemaVersion(envelope) !== 1) {
    throw new Refused("decode", "no handler for this type and version");
  }
  const { hostname } = envelope.data;
  if (typeof hostname !== "string") throw new Refused("decode", "hostname is no text");
  if (hostname.startsWith("poison") && !process.env.FIXED) throw new Refused("poison", "the host is poison");
  if (hostname.startsWith("busy") && attempt === 1) throw new Error("the host is busy");
  handled.add(key);
  return "handled";
}

// read decodes a message and holds it against its headers and its subject.
function read(m, subject) {
  try {
    const envelope = decode(m.data);
    const reason = contradiction(envelope, subject, headerMap(m));
    return { envelope, refused: reason && new Refused("security", reason) };
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return { refused: new Refused("decode", error.message) };
  }
}

// lastMark returns the mark in force of a letter and its sequence, from the
// stream's leader; null and 0 for none.
async function lastMark(letter) {
  const m = await jsm.streams.getMessage(ops, { last_by_subj: `dv.${service}.dlqmark.${letter}` });
  return m === null ? { mark: null, sequence: 0 } : { mark: m.json(), sequence: m.seq };
}

// roundOf returns how many replays came before the failure of an original.
function roundOf(mark) {
  if (mark === null) return 0;
  return Math.max(0, mark.round - (["claimed", "replayed", "open"].includes(mark.state) ? 1 : 0));
}

// originalOf says where the original is, and which ids its letter may have: the
// second is for a message that repeats the envelope id of another.
function originalOf(m, envelope, failure) {
  const h = headerMap(m);
  const own = h.get("Dv-Letter-Id")?.[0];
  if (own !== undefined) { // a replay, which tells; the time of its storing is another
    const at = (name) => h.get(`Dv-Original-${name}`)?.[0];
    return {
      ids: [own], replay: Number(h.get("Dv-Round")[0]), subject: at("Subject"), stream: at("Stream"), sequence: at("Sequence"),
      storedAt: at("Stored-At"), id: at("Id"), kept: h.get("Dv-Original-Header") ?? [],
    };
  }
  const byEnvelope = envelope && failure !== "security" ? [letterId(durable, stream, "envelope", envelope.id)] : [];
  const byPosition = letterId(durable, stream, "position", String(m.timestampNanos), String(m.seq));
  const kept = [...h].filter(([name]) => !name.startsWith("Nats-"))
    .flatMap(([name, values]) => values.map((value) => `${name}: ${value}`));
  return {
    ids: [...byEnvelope, byPosition], subject: m.subject, stream, sequence: String(m.seq), storedAt: rfc3339(m.timestampNanos),
    id: envelope?.id ?? h.get("Nats-Msg-Id")?.[0], kept,
  };
}

// letterHeaders returns the headers of a letter.
function letterHeaders(m, envelope, refused, original, letter, round) {
  const now = new Date().toISOString();
  const repeated = ["traceparent", "trace-id", "Dv-Site", ...(envelope ? [] : projected)];
  const says = {
    ...Object.fromEntries(repeated.map((name) => [name, m.headers?.get(name)])),
    ...(envelope ? projection(envelope) : {}),
    "Nats-Msg-Id": `${letter}/d${round}`, "Dv-Letter-Id": letter, "Dv-Round": String(round),
    "Dv-Durable": durable, "Dv-Class": refused.failure, "Dv-Error": refused.message,
    "Dv-Attempts": String(m.info.deliveryCount), "Dv-First-At": m.redelivered ? rfc3339(m.timestampNanos) : now, "Dv-Last-At": now,
    "Dv-Original-Subject": original.subject, "Dv-Original-Stream": original.stream, "Dv-Original-Sequence": original.sequence,
    "Dv-Original-Stored-At": original.storedAt, "Dv-Original-Id": original.id, "Dv-Resource": envelope?.subject,
  };
  const h = headers();
  for (const [name, value] of Object.entries(says)) if (value) h.set(name, value);
  for (const line of original.kept) {
    const [name, value] = [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)];
    if (says[name] !== value) h.append("Dv-Original-Header", line);
  }
  return h;
}

// bury publishes the dead letter and returns its id when it is stored.
async function bury(m, envelope, refused) {
  const original = originalOf(m, envelope, refused.failure);
  for (const letter of original.ids) {
    const round = original.replay ?? roundOf((await lastMark(letter)).mark);
    const h = letterHeaders(m, envelope, refused, original, letter, round);
    const ack = await js.publish(`dv.${service}.dlq.${original.subject}`, m.data, { headers: h });
    if (ack.stream !== letters) throw new Error(`the letter was stored in ${ack.stream}`);
    if (!ack.duplicate) return letter;
    // The server compared the message id and nothing else: look at what it has.
    const stored = await jsm.streams.getMessage(letters, { seq: ack.seq });
    if (stored === null) throw new Error("the letter was removed meanwhile: wait for the duplicate window");
    if (Buffer.compare(stored.data, m.data) === 0) return letter;
  }
  throw new Error("the letter's ids are taken by other messages");
}

// deliver comes to a verdict on one message. What throws here is no verdict: the
// message comes again.
async function deliver(m, letter) {
  const { envelope, refused } = read(m, letter ? m.headers.get("Dv-Original-Subject") : m.subject);
  let outcome;
  try {
    if (refused) throw refused;
    outcome = handle(envelope, m.info.deliveryCount);
  } catch (error) {
    if (!(error instanceof Refused)) {
      m.nak(200);
      return report("retry", { id: envelope.id, hostname: envelope.data.hostname });
    }
    const id = await bury(m, envelope, error);
    m.term();
    return report("buried", { letter: id, failure: error.failure });
  }
  if (letter) await resolve(letter);
  await m.ackAck();
  report(outcome, { id: envelope.id, hostname: envelope.data.hostname, attempt: m.info.deliveryCount, letter });
}

// resolve marks the letter of a handled replay, whoever else marks it meanwhile.
async function resolve(letter) {
  for (;;) {
    const { mark, sequence } = await lastMark(letter);
    if (mark?.state === "resolved") return;
    const resolved = {
      op: uuid7(), state: "resolved", round: Math.max(1, mark?.round ?? 1), by: `service:${service}`, at: new Date().toISOString(),
      letter_sequence: mark?.letter_sequence, letter_stored_at: mark?.letter_stored_at, batch: mark?.batch,
    };
    try {
      await js.publish(`dv.${service}.dlqmark.${letter}`, JSON.stringify(resolved), { expect: { lastSubjectSequence: sequence } });
    } catch {
      // Refused or unknown: the last mark tells.
    }
  }
}

// What SIGTERM stops, also while the consumers are only being found.
const stopped = new AbortController();
process.once("SIGTERM", () => stopped.abort());

// consume runs one durable until it is told to stop.
async function consume(from, name, deliverOne) {
  const messages = await (await js.consumers.get(from, name)).consume({ max_messages: 10 });
  stopped.signal.addEventListener("abort", () => messages.stop());
  if (stopped.signal.aborted) messages.stop();
  for await (const m of messages) {
    try {
      await deliverOne(m);
    } catch (error) {
      m.nak(1000);
      report("failed", { error: error.message });
    }
  }
}

report("ready");
await Promise.all([
  consume(stream, durable, (m) => deliver(m)),
  consume(ops, `${durable}__replay`, (m) => deliver(m, m.headers.get("Dv-Letter-Id"))),
]);
await nc.drain();
