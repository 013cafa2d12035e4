// Reads a log from its files, written from docs/format.md alone: no library, no code of eventlog.
//
//   node reader.js DIRECTORY [FIRST] [LAST]
//
// prints the events as `eventlog export` does, one JSON object a line, up to the high-water mark
// that it finds at its start; a last line has the positions of the consumers. It exits with 3 if
// stored bytes are damaged or of a format that it does not know.
"use strict";
const fs = require("fs"), path = require("path");
const FLAG_KEYED = 1, FLAG_CAUSED = 2, FLAG_DUE = 4, KNOWN = 7;

class Damaged extends Error {}
function check(condition, what) { if (!condition) throw new Damaged(what); }

// --- checksums ---------------------------------------------------------------------------------

function tableOf(polynomial) {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1;
    return value >>> 0;
  });
}

const CRC32C = tableOf(0x82f63b78), CRC32 = tableOf(0xedb88320);
function crc(table, bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = (sum >>> 8) ^ table[(sum ^ byte) & 0xff];
  return (sum ^ 0xffffffff) >>> 0;
}

// --- files -------------------------------------------------------------------------------------

function readAt(descriptor, offset, size) {
  const bytes = Buffer.alloc(size);
  return bytes.subarray(0, fs.readSync(descriptor, bytes, 0, size, offset));
}

function controlPage(directory) {
  const descriptor = fs.openSync(path.join(directory, "control"), "r");
  try {
    const page = readAt(descriptor, 0, 4096);
    check(page.length === 4096 && page.toString("latin1", 0, 8) === "EVLOGCTL", "no control page");
    check(page.readUInt16LE(8) === 1, `format version ${page.readUInt16LE(8)}`);
    check(page.readUInt16LE(10) === 0x0102, "another byte order");
    check(crc(CRC32C, page.subarray(0, 44)) === page.readUInt32LE(44), "the control page");
    // The words are stored by whoever writes: without a map, one is right if it is read twice alike.
    const word = (offset) => {
      for (;;) {
        const one = readAt(descriptor, offset, 8), other = readAt(descriptor, offset, 8);
        if (one.equals(other)) return one.readBigUInt64LE(0);
      }
    };
    return { highWater: word(64), first: word(80) };
  } finally {
    fs.closeSync(descriptor);
  }
}

function* batches(directory, first, last) {
  const bases = fs.readdirSync(directory).filter((name) => /^\d{20}\.seg$/.test(name))
    .map((name) => BigInt(name.slice(0, 20))).sort((a, b) => (a < b ? -1 : 1));
  let next = first, base = bases.filter((one) => one <= first).pop();
  while (next <= last) {
    check(base !== undefined, `event ${next} is in no segment`);
    const name = `${base.toString().padStart(20, "0")}.seg`;
    const descriptor = fs.openSync(path.join(directory, name), "r");
    try {
      for (const batch of ofSegment(descriptor, base, last)) {
        if (batch.base + BigInt(batch.count) <= next) continue;
        check(batch.base <= next, `event ${next} is missing`);
        yield batch;
        next = batch.base + BigInt(batch.count);
      }
    } finally {
      fs.closeSync(descriptor);
    }
    check(next > last || next !== base, `event ${next} is missing`);
    base = next; // the next segment is named after its first event
  }
}

function* ofSegment(descriptor, base, last) {
  const header = readAt(descriptor, 0, 64);
  check(header.length === 64 && header.toString("latin1", 0, 8) === "EVLOGSEG", "no segment");
  check(crc(CRC32C, header.subarray(0, 60)) === header.readUInt32LE(60), "a segment's header");
  check(header.readUInt16LE(8) === 1 && header.readUInt16LE(10) === 0x0102, "another version");
  check(header.readBigUInt64LE(16) === base, "a segment of another number");
  const size = Number(header.readBigUInt64LE(24));
  let offset = header.readUInt16LE(12);
  for (let next = base; next <= last && offset + 64 <= size; ) {
    const length = readAt(descriptor, offset, 64).readUInt32LE(4);
    if (length === 0) return; // the end of what this segment holds
    check(length >= 64 && offset + length <= size, `a batch with a length of ${length} bytes`);
    const bytes = readAt(descriptor, offset, length);
    check(crc(CRC32C, bytes.subarray(4)) === bytes.readUInt32LE(0), `event ${next}: its checksum`);
    check(bytes.readBigUInt64LE(8) === next, `event ${next} is missing`);
    const flags = bytes.readUInt16LE(44);
    check((flags & ~KNOWN) === 0 && bytes.readUInt16LE(46) === 64, `event ${next}: flags ${flags}`);
    const count = bytes.readUInt32LE(40);
    yield { base: next, count, flags, acks: bytes.readUInt32LE(52), payload: bytes.subarray(64) };
    next += BigInt(count);
    offset += Math.ceil(length / 8) * 8;
  }
}

// --- MessagePack -------------------------------------------------------------------------------

class Extension { constructor(code, data) { this.code = code; this.data = data; } }

class Unpacker {
  constructor(bytes) { this.bytes = bytes; this.at = 0; }

  take(size) {
    check(this.at + size <= this.bytes.length, "MessagePack that ends too soon");
    return this.bytes.subarray(this.at, (this.at += size));
  }
  size(width) { return this.take(width).readUIntBE(0, width); }
  array(count) { return Array.from({ length: count }, () => this.value()); }
  map(count) { return new Map(Array.from({ length: count }, () => [this.value(), this.value()])); }
  text(size) { return this.take(size).toString("utf8"); }
  extension(size) { return new Extension(this.take(1).readInt8(0), this.take(size)); }
  value() {
    const tag = this.size(1);
    if (tag < 0x80) return BigInt(tag);
    if (tag < 0x90) return this.map(tag & 0x0f);
    if (tag < 0xa0) return this.array(tag & 0x0f);
    if (tag < 0xc0) return this.text(tag & 0x1f);
    if (tag >= 0xe0) return BigInt(tag - 0x100);
    switch (tag) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.take(this.size(1 << (tag - 0xc4)));
      case 0xc7: case 0xc8: case 0xc9: return this.extension(this.size(1 << (tag - 0xc7)));
      case 0xca: return this.take(4).readFloatBE(0);
      case 0xcb: return this.take(8).readDoubleBE(0);
      case 0xcc: case 0xcd: case 0xce: return BigInt(this.size(1 << (tag - 0xcc)));
      case 0xcf: return this.take(8).readBigUInt64BE(0);
      case 0xd0: return BigInt(this.take(1).readInt8(0));
      case 0xd1: return BigInt(this.take(2).readInt16BE(0));
      case 0xd2: return BigInt(this.take(4).readInt32BE(0));
      case 0xd3: return this.take(8).readBigInt64BE(0);
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return this.extension(1 << (tag - 0xd4));
      case 0xd9: case 0xda: case 0xdb: return this.text(this.size(1 << (tag - 0xd9)));
      case 0xdc: case 0xdd: return this.array(this.size(tag === 0xdc ? 2 : 4));
      case 0xde: case 0xdf: return this.map(this.size(tag === 0xde ? 2 : 4));
    }
    throw new Damaged(`MessagePack with the byte ${tag}`);
  }
}

// --- events ------------------------------------------------------------------------------------

function* eventsOf(batch) {
  const { base, count, flags, acks, payload } = batch;
  let offset = 0;
  const area = (bit, width) => {
    const start = offset;
    if (flags & bit) offset += count * width;
    return flags & bit ? payload.subarray(start, offset) : null;
  };
  const hashes = area(FLAG_KEYED, 4), due = area(FLAG_DUE, 16);
  const columns = new Unpacker(payload.subarray(offset + acks)).value();
  check(columns.length === (flags & FLAG_CAUSED ? 6 : 5), "a body of another number of columns");
  const [ids, times, keys, headers, events, causes] = columns;
  check(events.length === count && times.length === 8 * count, "columns of other lengths");
  const causeOf = causes ? causesOf(causes) : new Map();
  for (let row = 0; row < count; row++) {
    const ns = times.readBigUInt64LE(8 * row);
    const key = keys && keys[row];
    check(!hashes || hashes.readUInt32LE(4 * row) === (key == null ? 0 : crc(CRC32, Buffer.from(key))),
      "a key with another hash");
    const found = { seq_no: base + BigInt(row), id: uuid(idOf(ids, row, ns, count)), timestamp: time(ns) };
    if (key != null) found.key = key;
    if (headers && headers[row]) found.headers = headers[row];
    if (causeOf.has(row)) found.cause = causeOf.get(row);
    for (const [place, name] of [[0, "not_before"], [8, "expires"]]) {
      const moment = due ? due.readBigUInt64LE(16 * row + place) : 0n;
      if (moment) found[name] = time(moment);
    }
    yield { ...found, event: events[row] };
  }
}

function idOf(ids, row, ns, count) {
  if (count === 1 || ids.length > 16) return ids.subarray(16 * row, 16 * row + 16);
  // One id for all: the time of the row, and the random bits of the id plus the row.
  const high = ids.readBigUInt64BE(0), low = ids.readBigUInt64BE(8), mask = (1n << 62n) - 1n;
  const random = ((((high & 0xfffn) << 62n) | (low & mask)) + BigInt(row)) & ((1n << 74n) - 1n);
  const id = Buffer.alloc(16);
  id.writeBigUInt64BE((((ns / 1000000n) & 0xffffffffffffn) << 16n) | 0x7000n | (random >> 62n), 0);
  id.writeBigUInt64BE((2n << 62n) | (random & mask), 8);
  return id;
}

function causesOf([sources, rows, which, numbers]) {
  const found = new Map();
  for (let place = 0; place < rows.length / 4; place++) {
    const [log, group] = sources[which.readUInt32LE(4 * place)];
    const seq_no = numbers.readBigUInt64LE(8 * place);
    found.set(rows.readUInt32LE(4 * place), { log_id: uuid(log), seq_no, group });
  }
  return found;
}

function uuid(bytes) {
  return bytes.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
function time(ns) { return moment(ns / 1000000000n, ns % 1000000000n, 9); }
function moment(seconds, fraction, digits) {
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  return fraction ? `${whole}.${fraction.toString().padStart(digits, "0")}Z` : `${whole}Z`;
}

// --- JSON, as `eventlog export` writes it ------------------------------------------------------

function json(value) {
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") {
    if (Number.isFinite(value)) return JSON.stringify(value);
    return json({ $float: Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf" });
  }
  if (Buffer.isBuffer(value)) return json({ $bytes: value.toString("base64") });
  if (Array.isArray(value)) return `[${value.map(json)}]`;
  if (value instanceof Extension) return json(extended(value.code, value.data));
  if (value instanceof Map) {
    const pairs = [...value];
    if (!pairs.every(([key]) => typeof key === "string" && !key.startsWith("$"))) return json({ $map: pairs });
    return `{${pairs.map(([key, one]) => `${JSON.stringify(key)}:${json(one)}`)}}`;
  }
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}:${json(one)}`)}}`;
}

function extended(code, data) {
  if (code === 1 && data.length === 16) return { $uuid: uuid(data) };
  if (code === -1) return { $datetime: timestamp(data) };
  if (code !== 2) return { $ext: [BigInt(code), data.toString("base64")] };
  const end = 1 + data[0], dimensions = data[end];
  const sizes = Array.from({ length: dimensions }, (_, n) => data.readBigUInt64LE(end + 1 + 8 * n));
  const values = data.subarray(end + 1 + 8 * dimensions);
  return { $array: [data.toString("latin1", 1, end), sizes, values.toString("base64")] };
}

function timestamp(data) {
  let seconds, ns = 0n;
  if (data.length === 4) seconds = BigInt(data.readUInt32BE(0));
  else if (data.length === 12) [ns, seconds] = [BigInt(data.readUInt32BE(0)), data.readBigInt64BE(4)];
  else [ns, seconds] = [data.readBigUInt64BE(0) >> 34n, data.readBigUInt64BE(0) & ((1n << 34n) - 1n)];
  return moment(seconds, ns / 1000n, 6); // to the microsecond
}

// --- consumers ---------------------------------------------------------------------------------

function positions(directory) {
  const table = fs.readFileSync(path.join(directory, "offsets")), found = {}, stated = states(directory);
  check(table.toString("latin1", 0, 8) === "EVLOGOFF" && table.readUInt16LE(8) <= 2, "no offset table");
  for (let at = 64, size = table.readUInt32LE(12); at + size <= table.length; at += size) {
    const bytes = table.subarray(at + 64, at + 64 + table.readUInt32LE(at + 24)), name = bytes.toString("utf8");
    if (table.readBigUInt64LE(at) !== 1n || crc(CRC32C, bytes) !== table.readUInt32LE(at + 28)) continue;
    const isKept = table.readBigUInt64LE(at + 32) === 1n && stated.has(name);
    found[name] = isKept ? stated.get(name) : table.readBigUInt64LE(at + 8);
  }
  return found;
}

function states(directory) {
  const file = path.join(directory, "states"), found = new Map();
  const journal = fs.existsSync(file) ? fs.readFileSync(file) : Buffer.alloc(0);
  check(!journal.length || journal.toString("latin1", 0, 8) === "EVLOGJNL", "no journal");
  for (let at = 16; at + 8 <= journal.length; at += 8 + journal.readUInt32LE(at)) {
    const size = journal.readUInt32LE(at), record = journal.subarray(at + 8, at + 8 + size);
    if (!size || record.length < size || crc(CRC32C, record) !== journal.readUInt32LE(at + 4)) break;
    found.set(...new Unpacker(record).value().slice(0, 2)); // name and position
  }
  return found;
}

function main([directory, from, to]) {
  const { highWater, first } = controlPage(directory);
  const start = BigInt(from || 0) > first ? BigInt(from) : first;
  const last = to && BigInt(to) < highWater ? BigInt(to) : highWater;
  const write = (line) => fs.writeSync(1, `${line}\n`);
  for (const batch of batches(directory, start, last)) {
    const lines = [];
    for (const one of eventsOf(batch)) if (one.seq_no >= start && one.seq_no <= last) lines.push(json(one));
    if (lines.length) write(lines.join("\n"));
  }
  write(json({ positions: positions(directory), high_water: last }));
}

try {
  main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Damaged)) throw error;
  process.stderr.write(`damaged: ${error.message}\n`);
  process.exitCode = 3;
}
