// The page of `eventlog ui`. Text of others goes into the page as text alone, never as markup.
const $ = (id) => document.getElementById(id);
const SHOWN_MAX = 300, POINTS_MAX = 300;
const READER_COLUMNS = ["name", "position", "lag", "trend", "behind", "out", "caught up in", "in flight", "again", "dead", "members"];
const WORKER_COLUMNS = ["pid", "handled", "out", "failed", "in flight", "busy for"];
let views = [], chosen = null, following = null, stream = null, waiting = [];
const points = new Map(), trends = new Map();

// --- numbers as text ---
const number = (value) => value === undefined ? "-" : value.toLocaleString("en-US");
const rate = (value) => value === undefined ? "-" : `${value >= 10 || value === 0 ? number(Math.round(value)) : value.toFixed(1)}/s`;
function size(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count.toFixed(unit && count < 100 ? 1 : 0)} ${units[unit]}`;
}
function duration(seconds) {
  if (seconds === undefined) return "-";
  if (seconds < 60) return seconds ? `${seconds.toFixed(1)} s` : "0 s";
  const whole = Math.round(seconds), two = (value) => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

// --- elements ---
function made(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  return element;
}
function fill(row, cells) {
  cells.forEach((cell, place) => {
    const box = row.children[place] ?? row.appendChild(made("td"));
    if (cell instanceof Element) box.replaceChildren(cell);
    else if (box.textContent !== cell) box.textContent = cell;
  });
}
function rows(body, items, key, cells, choose) {
  const kept = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = items.map((item) => {
    const name = key(item), row = kept.get(name) ?? made("tr");
    row.dataset.key = name;
    if (choose && !kept.has(name)) {
      row.tabIndex = 0;
      row.onclick = () => choose(name);
      row.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(name); } };
    }
    fill(row, cells(item));
    return row;
  });
  if (wanted.length !== body.children.length || wanted.some((row, place) => body.children[place] !== row)) body.replaceChildren(...wanted);
}
function trend(values) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  const top = Math.max(1, ...values), step = 72 / Math.max(1, values.length - 1);
  line.setAttribute("points", values.map((value, place) => `${(place * step).toFixed(1)},${(15 - 14 * value / top).toFixed(1)}`).join(" "));
  svg.setAttribute("class", "trend"); svg.setAttribute("viewBox", "0 0 72 16"); svg.append(line);
  return svg;
}
const head = (id, names) => $(id).tHead.rows[0].replaceChildren(...names.map((name) => made("th", name)));

// --- asking the server ---
const api = (name) => `api/logs/${$("log").value || 0}/${name}`;
async function answer(response) {
  const text = await response.text();
  let found;
  try { found = JSON.parse(text); } catch { found = { error: text }; }
  if (!response.ok) throw new Error(found.error ?? text);
  return found;
}
const post = (name, body) => fetch(api(name), { method: "POST", body: JSON.stringify(body) }).then(answer);
function tell(error) { $("state").textContent = error.message; $("state").className = "bad"; }

// --- now ---
const charts = {};
function draw(id, name) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--accent"), soft = getComputedStyle(document.documentElement).getPropertyValue("--soft");
  const axis = { stroke: soft, grid: { stroke: soft + "33" }, ticks: { show: false } };
  charts[id] = new uPlot({
    width: $(id).clientWidth || 400, height: 120, legend: { show: false }, cursor: { show: false },
    axes: [axis, { ...axis, size: 64, values: (_, values) => values.map(number) }], scales: { y: { range: (_, __, top) => [0, Math.max(1, top)] } },
    series: [{}, { label: name, stroke: colour, width: 1.5, fill: colour + "22" }],
  }, [[], []], $(id));
}
addEventListener("resize", () => { for (const id in charts) charts[id].setSize({ width: $(id).clientWidth, height: 120 }); });
function readers(view) {
  return [...(view.consumers ?? []).map((one) => ({ ...one, kind: "consumer" })), ...(view.groups ?? []).map((one) => ({ ...one, kind: "group" }))];
}
const key = (one) => `${one.kind} ${one.name}`;
function note(view, place) {
  const all = readers(view);
  const kept = points.get(place) ?? [[], [], []];
  points.set(place, kept);
  kept[0].push(Date.parse(view.taken_at) / 1000); kept[1].push(view.appended_per_s ?? null); kept[2].push(Math.max(0, ...all.map((one) => one.lag)));
  if (kept[0].length > POINTS_MAX) kept.forEach((values) => values.shift());
  for (const one of all) {
    const name = `${place} ${key(one)}`, lags = trends.get(name) ?? [];
    trends.set(name, [...lags.slice(-59), one.lag]);
  }
}
function show() {
  const place = Number($("log").value || 0), view = views[place];
  if (!view) return;
  if (view.error) { tell(new Error(view.error)); return; }
  $("state").textContent = `as of ${new Date(view.taken_at).toLocaleTimeString()}`; $("state").className = "";
  const writer = view.writer ?? {};
  const tiles = [["in", rate(view.appended_per_s)], ["last number", number(view.last_seq_no)], ["first number", number(view.first_seq_no)], ["stored", size(view.bytes)],
    ["writer", writer.pid && `process ${writer.pid}`], ["writer's processor", writer.cpu_percent !== undefined && `${writer.cpu_percent.toFixed(0)} %`],
    ["writer's memory", writer.rss_bytes && size(writer.rss_bytes)], ["syncs", writer.syncs_per_s !== undefined && rate(writer.syncs_per_s)],
    ["a sync takes", writer.mean_sync_s !== undefined && `${(1000 * writer.mean_sync_s).toFixed(1)} ms`]].filter(([, value]) => value);
  const boxes = $("tiles");
  tiles.forEach(([name, value], n) => {
    const box = boxes.children[n] ?? boxes.appendChild(made("div"));
    if (!box.children.length) box.append(made("dt"), made("dd"));
    box.children[0].textContent = name; box.children[1].textContent = value;
  });
  while (boxes.children.length > tiles.length) boxes.lastChild.remove();
  const [times, ins, lags] = points.get(place) ?? [[], [], []];
  charts.in?.setData([times, ins]); charts.lag?.setData([times, lags]);
  const filter = $("reader-filter").value, all = readers(view).filter((one) => one.name.includes(filter)).sort((a, b) => b.lag - a.lag || (a.name < b.name ? -1 : 1));
  rows($("readers").tBodies[0], all, key, (one) => {
    const cells = [one.name, number(one.position), number(one.lag), trend(trends.get(`${place} ${key(one)}`) ?? []), duration(one.lag_s), rate(one.acked_per_s), one.lag ? duration(one.catch_up_s) : "-"];
    return one.kind === "group" ? [...cells, number(one.in_flight), number(one.redeliveries), number(one.dead_letters), number(one.members)] : [...cells, "", "", "", ""];
  }, choose);
  mark();
  const group = all.find((one) => key(one) === chosen && one.working?.length);
  $("workers-part").hidden = !group;
  if (group) {
    $("workers-of").textContent = group.name;
    rows($("workers").tBodies[0], group.working, (one) => String(one.pid), (one) => [String(one.pid), number(one.handled), rate(one.handled_per_s), number(one.failed), number(one.in_flight), duration(one.busy_s)]);
  }
}
function choose(name) { chosen = name; mark(); show(); }
function mark() {
  for (const row of $("readers").tBodies[0].rows) row.setAttribute("aria-selected", row.dataset.key === chosen);
  $("chosen").textContent = chosen ?? "choose one below";
}
function watch() {
  const source = new EventSource("api/views");
  source.onmessage = (event) => {
    views = JSON.parse(event.data);
    const select = $("log");
    if (select.options.length !== views.length) select.replaceChildren(...views.map((view, place) => new Option(view.path, place)));
    views.forEach((view, place) => { if (!view.error) note(view, place); });
    requestAnimationFrame(show);
  };
  source.onerror = () => tell(new Error("the server of this page is gone; it is asked again"));
}

// --- questions ---
function ask({ text, label, value = "", preview }) {
  const dialog = $("ask"), input = $("ask-input");
  $("ask-text").textContent = text; $("ask-label").hidden = !label; $("ask-label").firstElementChild.textContent = label ?? "";
  input.value = value; $("ask-preview").textContent = ""; $("ask-preview").className = "";
  let turn = 0;
  const look = async () => {
    const mine = ++turn;
    try { const said = await preview(input.value); if (mine === turn) { $("ask-preview").textContent = said; $("ask-preview").className = ""; } }
    catch (error) { if (mine === turn) { $("ask-preview").textContent = error.message; $("ask-preview").className = "bad"; } }
  };
  input.oninput = preview ? look : null;
  if (preview && value) look();
  dialog.returnValue = "no"; dialog.showModal();
  if (label) input.select();
  return new Promise((done) => { dialog.onclose = () => done(dialog.returnValue === "yes" ? input.value : null); });
}
const chosenReader = () => { const view = views[Number($("log").value || 0)]; return view && !view.error ? readers(view).find((one) => key(one) === chosen) : undefined; };
async function act(work) { try { await work(); } catch (error) { tell(error); } }
const seek = () => act(async () => {
  const reader = chosenReader();
  if (!reader) throw new Error("choose a consumer or a group first");
  const consumer = reader.name, where = (position, dry_run) => post("seek", { consumer, position, dry_run }).then((found) => found.done);
  const position = await ask({ text: `Move ${consumer}`, label: "to (number, time, 15m, beginning, latest)", value: String(reader.position + 1), preview: (text) => text ? where(text, true) : "" });
  if (position) await where(position, false);
});
const acknowledge = () => act(async () => {
  const reader = chosenReader(), view = views[Number($("log").value || 0)];
  if (!reader) throw new Error("choose a consumer or a group first");
  const preview = (text) => /^\d+$/.test(text) ? `${reader.name}: ${number(reader.position)} -> ${number(Number(text))}, ${number(Math.max(0, Number(text) - reader.position))} events passed over` : "give a number";
  const seq_no = await ask({ text: `Acknowledge for ${reader.name}`, label: "everything up to number", value: String(view.last_seq_no ?? ""), preview: async (text) => preview(text) });
  if (seq_no) await post("ack", { consumer: reader.name, seq_no });
});

// --- dead letters ---
let lettersOf = null, letterNumbers = [];
const showLetters = () => act(async () => {
  const reader = chosenReader();
  if (reader?.kind !== "group") throw new Error("choose a group first: dead letters are those of a group");
  lettersOf = reader.name;
  await readLetters();
  $("letters-part").scrollIntoView({ block: "nearest" });
});
async function readLetters() {
  const { count, letters } = await fetch(api(`letters?group=${encodeURIComponent(lettersOf)}`)).then(answer);
  $("letters-part").hidden = false; $("letters-of").textContent = lettersOf;
  $("letters-state").textContent = count > letters.length ? `the first ${letters.length} of ${number(count)}` : count ? `${number(count)}` : "none";
  letterNumbers = letters.map((one) => one.seq_no);
  $("letters").replaceChildren(...letters.map((one) => {
    const box = made("div", undefined, { className: "letter" }), tools = made("div", undefined, { className: "tools" });
    const retry = made("button", "Retry"), drop = made("button", "Drop"), more = made("details");
    retry.onclick = () => settle("retry", `Retry event ${one.seq_no}?`, [one.seq_no]);
    drop.onclick = () => settle("drop", `Drop the letter of event ${one.seq_no} for good?`, [one.seq_no]);
    tools.append(made("strong", `event ${number(one.seq_no)}`), made("span", one.key ?? "", { className: "soft" }), made("span", `${one.deliveries} ${one.deliveries === 1 ? "delivery" : "deliveries"}`, { className: "soft" }), made("span", new Date(one.failed_at).toLocaleString(), { className: "soft" }), retry, drop);
    more.append(made("summary", one.error), made("pre", [one.traceback, ...(one.log_lines ?? [])].filter(Boolean).join("\n")), tree(one.event, "event"));
    box.append(tools, more);
    return box;
  }));
}
const settle = (name, text, seq_nos) => act(async () => {
  if (seq_nos.length && await ask({ text }) !== null) { await post(name, { group: lettersOf, seq_nos }); await readLetters(); }
});

// --- events ---
function tree(value, name) {
  if (value === null || typeof value !== "object") {
    const leaf = made("div", undefined, { className: "leaf" });
    leaf.append(made("span", `${name}: `, { className: "name" }), made("span", JSON.stringify(value)));
    return leaf;
  }
  const entries = Object.entries(value), box = made("details", undefined, { open: entries.length <= 20 }), title = made("summary");
  title.append(made("span", name, { className: "name" }), made("span", Array.isArray(value) ? ` [${entries.length}]` : ` {${entries.length}}`, { className: "soft" }));
  box.append(title);
  const open = () => { if (box.childElementCount === 1) box.append(...entries.slice(0, 1000).map(([inner, one]) => tree(one, inner))); };
  if (box.open) open(); else box.addEventListener("toggle", open, { once: true });
  return box;
}
function eventRow(one) {
  const row = made("tr", undefined, { tabIndex: 0 });
  fill(row, [number(one.seq_no), one.stored_at ? one.stored_at.slice(11, 23) : "", one.key ?? "", one.is_deletion ? "(deleted)" : JSON.stringify(one.event).slice(0, 300)]);
  row.onclick = () => look(one, row);
  row.onkeydown = (event) => { if (event.key === "Enter") look(one, row); };
  return row;
}
function look(one, row) {
  for (const other of $("events").tBodies[0].rows) other.setAttribute("aria-selected", other === row);
  const { event, ...about } = one;
  $("event").replaceChildren(...Object.entries(about).map(([name, value]) => tree(value, name)), tree(event, "event"));
}
async function browse(query) {
  stop();
  await act(async () => {
    $("events-state").textContent = "looking";
    if ($("where").value) query.where = $("where").value;
    let found = await fetch(api(`events?${new URLSearchParams(query)}`)).then(answer);
    while (!found.events.length && !found.is_at_end) {  // a filter that wants few: go on
      $("events-state").textContent = `looking, at ${number(found.following)}`;
      found = await fetch(api(`events?${new URLSearchParams({ ...query, from: found.following })}`)).then(answer);
    }
    following = found.following;
    $("events").tBodies[0].replaceChildren(...found.events.map(eventRow));
    $("events-state").textContent = `${number(found.events.length)} events${found.is_at_end ? ", to the end" : ""}`;
  }).finally(() => { if ($("events-state").textContent.startsWith("looking")) $("events-state").textContent = ""; });
}
function live() {
  if (stream) { stop(); return; }
  const query = new URLSearchParams($("where").value ? { where: $("where").value } : {});
  let passed = 0, isDue = false;
  stream = new EventSource(api(`live?${query}`));
  $("live").setAttribute("aria-pressed", "true"); $("events-state").textContent = "waiting for events";
  $("events").tBodies[0].replaceChildren();
  const flush = () => {
    isDue = false;
    const body = $("events").tBodies[0];
    body.prepend(...waiting.splice(0).slice(-SHOWN_MAX).reverse().map(eventRow));
    while (body.rows.length > SHOWN_MAX) body.lastChild.remove();
    $("events-state").textContent = passed ? `live; ${number(passed)} passed over, more than a page can show` : "live";
  };
  const due = () => { if (!isDue) { isDue = true; requestAnimationFrame(flush); } };
  stream.onmessage = (event) => { waiting.push(JSON.parse(event.data)); due(); };
  stream.addEventListener("passed", (event) => { passed += Number(event.data); due(); });
  stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) { stop(); tell(new Error("the live view was refused: is the filter right?")); } };
}
function stop() {
  stream?.close(); stream = null; waiting = [];
  $("live").setAttribute("aria-pressed", "false");
}

// --- keys and buttons ---
head("readers", READER_COLUMNS); head("workers", WORKER_COLUMNS);
$("seek").onclick = seek; $("ack").onclick = acknowledge; $("show-letters").onclick = showLetters; $("live").onclick = live;
$("help").onclick = () => $("words").showModal();
$("close-letters").onclick = () => { $("letters-part").hidden = true; };
$("retry-all").onclick = () => settle("retry", `Retry ${letterNumbers.length} events?`, letterNumbers);
$("reader-filter").oninput = show;
$("log").onchange = () => { stop(); chosen = null; following = null; $("letters-part").hidden = true; show(); browse({ last: 1 }); };
$("browse").onsubmit = (event) => { event.preventDefault(); browse($("from").value ? { from: $("from").value } : { last: 1 }); };
$("last").onclick = () => browse({ last: 1 });
$("following").onclick = () => browse(following ? { from: following } : { last: 1 });
const KEYS = { k: seek, a: acknowledge, l: showLetters, f: live, "?": () => $("words").showModal(), "/": () => $("reader-filter").focus() };
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const work = KEYS[event.key];
  if (work) { event.preventDefault(); work(); }
});
draw("in", "in"); draw("lag", "lag");
watch();
browse({ last: 1 });
