// The wire contract as docs/WIRE.md states it, for producer.mjs and consumer.mjs:
// what an author in this language has to write once.
import { createHash, randomBytes } from "node:crypto";

const services = ["sentral", "identitet", "maskin", "plattform", "tjeneste", "objekt", "nett"];
const maxSize = 512 * 1024;
const maxDepth = 64;
const maxMembers = 128;

const id = /^[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}$/;
const token = "[a-z][a-z0-9_]*";
const rules = {
  specversion: [true, /^1\.[0-9]{1,8}$/],
  id: [true, /^(?!0{8}-(0{4}-){3}0{12}$)(?!f{8}-(f{4}-){3}f{12}$)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/],
  type: [true, new RegExp(`^(${services.join("|")}|task)(\\.${token}){1,5}$`)],
  source: [true, new RegExp(`^(${services.join("|")})$`)],
  subject: [true, /^\P{Cc}+$/u],
  time: [true, /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z$/],
  datacontenttype: [true, /^(application\/json|[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9][a-z0-9!#$&^_.+-]*\+json)$/],
  dataschema: [true, /^urn:dataverket:schema:[a-z0-9_.]+:v[1-9][0-9]{0,4}$/],
  tenant_id: [false, id],
  project_id: [false, id],
  environment_id: [false, id],
  datacenter_id: [false, id],
  actor: [false, /^(user|service|operator|system):[A-Za-z0-9][A-Za-z0-9._:@/+=-]*$/],
  correlation_id: [true, id],
  causation_id: [false, id],
  visibility: [false, /^(internal|external)$/],
};
const lengths = { subject: 256, actor: 160, type: 255, datacontenttype: 127 };
const known = [...Object.keys(rules), "data"];

// Malformed: these bytes will never decode.
export class Malformed extends Error {}

// uuid7 returns a new message id.
export function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// decode returns the envelope in some bytes, or throws Malformed. Forward the
// bytes and not the object: the bytes keep what this version does not know.
export function decode(bytes) {
  if (bytes.length > maxSize) throw new Malformed("larger than 512 KiB");
  let text, envelope;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    checkNames(topLevelNames(text));
    envelope = JSON.parse(text);
  } catch (error) {
    throw error instanceof Malformed ? error : new Malformed("no acceptable JSON");
  }
  if (kind(envelope) !== "object") throw new Malformed("no JSON object");
  checkText(envelope);
  const faults = validate(envelope);
  if (faults.length > 0) throw new Malformed(faults.join("; "));
  return envelope;
}

// encode returns the bytes of an envelope that follows the rules.
export function encode(envelope) {
  const bytes = new TextEncoder().encode(JSON.stringify(envelope));
  decode(bytes);
  return bytes;
}

function kind(value) {
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

// validate returns one text for each field that breaks its rule, without values.
function validate(envelope) {
  const faults = [];
  for (const [name, [required, rule]] of Object.entries(rules)) {
    const value = envelope[name];
    if (value === undefined && !required) continue;
    const long = Buffer.byteLength(String(value)) > (lengths[name] ?? 128);
    if (typeof value !== "string" || !rule.test(value) || long) faults.push(`${name} breaks its rule`);
  }
  if (schemaVersion(envelope) === 0) faults.push("dataschema is not that of the type");
  if (kind(envelope.data) !== "object") faults.push("data is no object");
  return faults;
}

// schemaVersion returns the n of urn:dataverket:schema:<type>:v<n>, or 0.
export function schemaVersion(envelope) {
  const prefix = `urn:dataverket:schema:${envelope.type}:v`;
  const schema = String(envelope.dataschema);
  const n = schema.startsWith(prefix) ? Number(schema.slice(prefix.length)) : 0;
  return n >= 1 && n <= 65535 ? n : 0;
}

// topLevelNames returns the names of the outermost object as they are written, and
// refuses what is nested too deep. JSON.parse keeps the last of equal names and
// says nothing.
function topLevelNames(text) {
  const names = [];
  const colon = /\s*:/y;
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "{" || text[i] === "[") {
      if (++depth > maxDepth) throw new Malformed("more than 64 levels are nested");
    } else if (text[i] === "}" || text[i] === "]") {
      depth--;
    } else if (text[i] === '"') {
      const start = i++;
      while (i < text.length && text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
      colon.lastIndex = i + 1;
      if (depth === 1 && colon.test(text)) names.push(JSON.parse(text.slice(start, i + 1)));
    }
  }
  return names;
}

// checkNames refuses names that two readers could take for one another.
function checkNames(names) {
  if (names.length > maxMembers) throw new Malformed("more than 128 members");
  const folded = new Set();
  for (const name of names) {
    // i and u together compare as Unicode's simple folding does: long s is s.
    const variant = known.some((k) => k !== name && new RegExp(`^${k}$`, "iu").test(name));
    const lower = name.toLowerCase();
    if (variant || folded.has(lower)) throw new Malformed("a name comes twice, or in another case");
    folded.add(lower);
  }
}

// checkText refuses U+0000 and lone surrogates, wherever they are.
function checkText(value) {
  if (typeof value === "string") {
    if (value.includes("\0") || !value.isWellFormed()) throw new Malformed("U+0000 or a lone surrogate");
  } else if (value !== null && typeof value === "object") {
    for (const [name, inner] of Object.entries(value)) {
      checkText(name);
      checkText(inner);
    }
  }
}

// projected are the names of the headers that repeat the envelope.
export const projected = ["Nats-Msg-Id", "X-Correlation-Id", "X-Causation-Id", "X-Event-Version", "tenant-id", "Dv-Type", "Dv-Source"];

// projection returns those headers.
export function projection(envelope) {
  const all = {
    "Nats-Msg-Id": envelope.id,
    "X-Correlation-Id": envelope.correlation_id,
    "X-Causation-Id": envelope.causation_id,
    "X-Event-Version": String(schemaVersion(envelope)),
    "tenant-id": envelope.tenant_id,
    "Dv-Type": envelope.type,
    "Dv-Source": envelope.source,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

// contradiction returns why headers or subject say something else than the
// envelope, or "". Absent headers are fine. headers is a Map of arrays.
export function contradiction(envelope, subject, headers) {
  const says = projection(envelope);
  const replay = headers.get("Dv-Letter-Id")?.[0];
  for (const name of projected) {
    for (const [key, values] of headers) {
      if (key.toLowerCase() !== name.toLowerCase()) continue;
      const right = replay !== undefined && name === "Nats-Msg-Id"
        ? values[0].startsWith(`${replay}/`)
        : values[0] === says[name];
      if (key !== name || values.length !== 1 || !right) return `header ${name} contradicts the envelope`;
    }
  }
  const [, service, family] = subject.split(".");
  const owner = service === "task" ? "task" : service;
  if (envelope.type.split(".")[0] !== owner) return "the type does not begin like its subject";
  if (family === "evt" && owner !== "task" && envelope.source !== service) return "the source is not the service of its subject";
  if (family === "cmd" && envelope.actor === undefined) return "a command has no actor";
  return "";
}

// letterId returns the id of a dead letter: of the envelope where it can be relied
// on, of the position else.
export function letterId(durable, stream, ...rest) {
  const hash = createHash("sha256");
  for (const part of ["dv.letter.v1", durable, stream, ...rest]) {
    const bytes = Buffer.from(part);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  return `l${hash.digest("hex").slice(0, 40)}`;
}

// rfc3339 writes nanoseconds since 1970, a BigInt, with all its digits.
export function rfc3339(nanos) {
  const seconds = new Date(Number(nanos / 1000000n)).toISOString().slice(0, 19);
  return `${seconds}.${String(nanos % 1000000000n).padStart(9, "0")}Z`;
}
