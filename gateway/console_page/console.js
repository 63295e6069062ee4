// The console: reads the tenant's own API with the key that was typed, which only this module's memory holds.

const LISTED = 50;
const $ = (selector, within = document) => within.querySelector(selector);
const number = new Intl.NumberFormat("en");
const LOOKED_THROUGH = 1_000;  // held prices, so that a page that is open costs little however many there were
const PATIENCE_MS = 10_000, DECIDED_MS = 60_000;
const SILENT_MS = 40_000;  // of a stream that says something every 15 s
const ENDED = "#key-ended";
let base = "", key = "", inside = false, ended = false;

/** An element with attributes, its children text or elements: text never becomes markup. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute.startsWith("on")) made.addEventListener(attribute.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(attribute, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null).map((child) => child.nodeType ? child : String(child)));
  return made;
}

/** What the browser says of a connection that broke, or took too long, in our words. */
function away() {
  throw new Error("The gateway cannot be reached.");
}

/** Back to the login, in a page loaded anew: nothing of the tenant's is left. The hash says why to the page that comes. */
function leave(hash = "") {
  ended = true;
  $("#sections").replaceChildren();
  history.replaceState(null, "", hash || location.pathname);
  location.reload();
}

/** The API's answer; throws an Error with the problem's detail (RFC 9457). */
async function call(path, { body, headers, ...rest } = {}) {
  const json = body === undefined ? {} : { "Content-Type": "application/json", "Idempotency-Key": crypto.randomUUID() };
  const answer = await fetch(base + path, {
    headers: { "X-API-Key": key, Accept: "application/json", ...json, ...headers },
    body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS), ...rest,
  }).catch(away);
  if (inside && answer.status === 401) leave(ENDED);
  if (ended) return new Promise(() => {});  // whoever waits does not go on in a page that is being left
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? `the gateway answered ${answer.status}`);
}

const get = async (path) => (await call(path)).json().catch(away);
const badge = (word) => el("span", { class: `badge ${word}` }, word.replaceAll("_", " "));
const dated = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const time = (moment) => el("time", { datetime: moment }, dated.format(new Date(moment)));
const problemOf = (section, error) => { $(".problem", section).textContent = error ? error.message : ""; };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Call `look` every so often while the page is seen; what goes wrong is shown where it belongs, and tried again. */
async function repeat(section, ms, look) {
  let failed = false;  // what a click failed with stays to be read
  for (;;) {
    if (document.visibilityState === "visible") {
      try {
        await look();
        if (failed) problemOf(section);
        failed = false;
      } catch (error) {
        problemOf(section, error);
        failed = true;
      }
      section.classList.toggle("stale", failed);
    }
    await sleep(ms);
  }
}

// Now

function milliseconds(ms) {
  if (ms == null) return "–";
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function showActivity(found) {
  const most = Math.max(0, ...found.seconds.map((second) => second.rows));
  const bars = found.seconds.filter((second) => second.ago < 60).map((second) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = Math.max(1, 58 * second.rows / Math.max(1, most));
    for (const [name, value] of Object.entries({ x: 236 - 4 * second.ago, y: 60 - height, width: 3, height })) {
      bar.setAttribute(name, value);
    }
    return bar;
  });
  $("#rate").replaceChildren(...bars);
  const last = found.seconds.filter((second) => second.ago >= 1 && second.ago <= 5).reduce((sum, s) => sum + s.rows, 0);
  const figures = [
    ["rows/s now", number.format(Math.round(last / 5))], ["rows a minute", number.format(found.rows)],
    ["applied", number.format(found.applied)], ["rejected", number.format(found.rejected)],
    ["duplicate", number.format(found.duplicate)], ["peak rows/s", number.format(most)],
    ["half within", milliseconds(found.median_ms)], ["95 % within", milliseconds(found.p95_ms)],
  ];
  $("#figures").replaceChildren(...figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

// Uploads

function uploadItem(upload) {
  const { applied, declared, missing_count: missing } = upload.chunks;
  const total = declared ?? applied + missing, known = declared != null || upload.state !== "open";
  const eta = upload.eta_s ? `, ${Math.ceil(upload.eta_s)} s to go` : "";
  const rows = Object.entries(upload.rows).filter(([, count]) => count).map(([name, count]) => `${number.format(count)} ${name}`);
  const title = upload.name ?? upload.entity;
  return el("li", {},
    el("div", { class: "row" }, el("strong", {}, title), badge(upload.state)),
    el("progress", { max: Math.max(1, total), "aria-label": `Chunks of ${title}`, ...(known ? { value: applied } : {}) }),
    el("p", {}, el("small", {}, `${applied} of ${declared ?? "?"} chunks${eta}. ${rows.join(", ") || "no rows yet"}. `), time(upload.opened_at)),
    upload.rows.rejected ? el("button", { type: "button", onclick: () => saveErrors(upload) }, "Refused rows as NDJSON") : null);
}

async function saveErrors(upload) {
  problemOf($("#uploads"));
  try {
    const answer = await call(`/uploads/${upload.token}/errors`, { headers: { Accept: "application/x-ndjson" }, signal: undefined });
    const link = el("a", { href: URL.createObjectURL(await answer.blob().catch(away)), download: `${upload.upload_id}-refused.ndjson` });
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) { problemOf($("#uploads"), error); }
}

let uploadsShown = "";
async function showUploads() {
  const found = (await get("/uploads?limit=10")).data;
  const said = JSON.stringify(found);
  if (said === uploadsShown) return;  // what has the focus keeps it
  uploadsShown = said;
  $("#uploads .list").replaceChildren(...found.map(uploadItem));
}

// Price alerts, as server-sent events: EventSource cannot send the key, so the stream is read by hand.

const money = (amount, currency) => amount == null ? "–" : `${amount}${currency ? ` ${currency}` : ""}`;
const asked = (alert) => `${money(alert.price_before, alert.currency)} → ${money(alert.new_price, alert.new_currency ?? alert.currency)}`;

function alertItem(alert, ...more) {
  return el("li", {},
    el("div", { class: "row" }, el("strong", {}, alert.product_id), badge(alert.status)),
    el("p", {}, asked(alert)),
    ...alert.findings.map((finding) => el("p", {}, el("small", {}, `${finding.name.replaceAll("_", " ")}: ${finding.reason}`))),
    el("p", {}, time(alert.logged_at ?? alert.occurred_at)), ...more);
}

const placeOf = (alert) => `${alert.offset}:${alert.row}`;
const seen = new Set();

function takeAlert(alert) {
  const place = placeOf(alert);
  if (seen.has(place)) return;  // the stream says some things twice
  seen.add(place);
  const list = $("#alerts .list"), item = alertItem(alert);
  item.dataset.place = place;
  list.prepend(item);
  showBecame(alert);
  while (list.children.length > LISTED) list.lastChild.remove();
}

/** Among the alerts, a price that was held shows what became of it. */
function showBecame(alert) {
  const became = alert.superseded_by ? "superseded" : { approve: "approved", reject: "rejected" }[alert.decision?.decision];
  const item = became && [...$("#alerts .list").children].find((shown) => shown.dataset.place === placeOf(alert));
  if (item && $(".badge", item).textContent !== became) $(".badge", item).replaceWith(badge(became));
}

async function followAlerts() {
  const live = $("#alerts .live");
  let lastId = "", pause = 1000;
  for (;;) {
    const silence = new AbortController();
    try {
      const answer = await heard(silence, () => call("/price-alerts/stream", {
        headers: { Accept: "text/event-stream", ...(lastId ? { "Last-Event-ID": lastId } : {}) }, signal: silence.signal,
      }));
      live.textContent = "live";
      live.classList.add("on");
      pause = 1000;
      if (!lastId) {  // the stream is open, so that nothing is missed in between
        for (const alert of (await get(`/price-alerts?limit=${LISTED}`)).data.reverse()) takeAlert(alert);
      }
      let why = "the stream ended; it is opened again";
      for await (const event of events(answer.body, silence)) {
        if (event.id) lastId = event.id;
        if (event.name === "alert") takeAlert(JSON.parse(event.data));
        if (event.name !== "end") continue;
        const said = JSON.parse(event.data);
        if (said.code === "key_ended") return leave(ENDED);
        why = said.detail;
      }
      live.textContent = why;
    } catch (error) { live.textContent = error.message; }
    live.classList.remove("on");
    await sleep(pause);
    pause = Math.min(2 * pause, 30000);
    live.textContent = "connecting";
  }
}

/** What `look` comes to; it is broken off where nothing comes for too long. */
async function heard(silence, look) {
  const timer = setTimeout(() => silence.abort(), SILENT_MS);
  try { return await look(); } finally { clearTimeout(timer); }
}

async function* events(stream, silence) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await heard(silence, () => reader.read()).catch(away);
    if (done) return;
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const event = { name: "message", data: "" };
      for (const line of text.slice(0, end).split("\n")) {
        const [, field, said] = line.match(/^([a-z]*): ?(.*)$/) ?? [];
        if (field === "event") event.name = said;
        else if (field === "data") event.data += said;
        else if (field === "id") event.id = said;
      }
      yield event;
    }
  }
}

// Held prices

const held = $("#held"), sure = $("dialog", held);
const decided = new Set();  // here, and perhaps not to be read yet
const alertOf = new WeakMap();  // of an item
const WORDS = { approve: "Approve", reject: "Reject" };

function heldItem(alert) {
  const choice = (decision) => el("button", {
    type: "button", class: decision, "aria-label": `${decision} the price of ${alert.product_id}`,
    onclick: (event) => decide([event.target.closest("li")], decision),
  }, WORDS[decision]);
  const item = alertItem(alert, el("div", { class: "actions" }, choice("approve"), choice("reject")));
  const box = el("input", { type: "checkbox", "aria-label": `choose the price of ${alert.product_id}` });
  $("strong", item).replaceWith(el("label", { class: "pick" }, box, el("strong", {}, alert.product_id)));
  item.dataset.place = placeOf(alert);
  alertOf.set(item, alert);
  return item;
}

// Several at once: those whose boxes are ticked.

const items = () => [...$(".list", held).children];
const chosen = () => items().filter((item) => $("input:checked:enabled", item));  // others are being decided

function recount() {
  const all = items().length, several = chosen().length, box = $(".several input", held);
  $(".several", held).hidden = all < 2;
  box.checked = several > 0 && several === all;
  box.indeterminate = several > 0 && several < all;
  $(".several span", held).textContent = several ? `${several} of ${all} chosen` : `Choose all ${all} shown`;
  for (const button of held.querySelectorAll(".several button")) {
    button.disabled = !several;
    button.textContent = `${WORDS[button.value]} ${several || ""}`;
  }
}

held.addEventListener("change", ({ target }) => {
  if (target.closest(".several")) for (const item of items()) $("input", item).checked = target.checked;
  recount();
});
for (const button of held.querySelectorAll(".several button")) {
  button.addEventListener("click", async () => {
    const meant = chosen();  // what comes while the question stands is not meant
    if (await confirmed(button.value, meant.map((item) => alertOf.get(item)))) decide(meant, button.value);
  });
}

/** Whether somebody who was told how many prices there are says yes. */
function confirmed(decision, alerts) {
  const many = alerts.length === 1 ? "1 held price" : `${alerts.length} held prices`;
  $("h2", sure).textContent = `${WORDS[decision]} ${many}?`;
  const named = alerts.slice(0, 5).map((alert) => el("li", {}, el("strong", {}, alert.product_id), ` ${asked(alert)}`));
  if (alerts.length > 5) named.push(el("li", {}, `and ${alerts.length - 5} more`));
  $("ul", sure).replaceChildren(...named);
  $("[value=yes]", sure).className = decision;
  $("[value=yes]", sure).textContent = `${WORDS[decision]} ${alerts.length}`;
  sure.returnValue = "";
  sure.showModal();
  return new Promise((answer) => sure.addEventListener("close", () => answer(sure.returnValue === "yes"), { once: true }));
}
for (const button of sure.querySelectorAll("button")) button.addEventListener("click", () => sure.close(button.value));

/** Whether a held price still is: nobody has decided, and no later price of the product took its place. */
const waits = (alert) => !alert.decision && !alert.superseded_by;

/** Held prices, the newest first, until there are as many that wait as are shown, or enough was looked through. */
async function readHeld() {
  const found = [];
  let waiting = 0, cursor = "";
  do {
    const page = await get(`/price-alerts?status=held&limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
    found.push(...page.data);
    waiting += page.data.filter(waits).length;
    cursor = page.next_cursor ?? "";
  } while (cursor && waiting < LISTED && found.length < LOOKED_THROUGH);
  $("#held .more").hidden = !cursor || waiting >= LISTED;
  return found;
}

async function showHeld() {
  const found = await readHeld();
  const undecided = found.filter((alert) => waits(alert) && !decided.has(placeOf(alert))).slice(0, LISTED);
  const open = new Map(undecided.map((alert) => [placeOf(alert), alert]));
  const list = $("#held .list");
  for (const item of [...list.children]) if (!open.has(item.dataset.place)) takeAway(item);
  let next = list.firstElementChild;  // what stays is not moved, so that it keeps the focus
  for (const [place, alert] of open) {
    if (next?.dataset.place === place) next = next.nextElementSibling;
    else list.insertBefore(heldItem(alert), next);
  }
  for (const alert of found) showBecame(alert);
  recount();
}

/** Remove an item; the focus goes to what is beside it, or to the heading. */
function takeAway(item, focused = item.contains(document.activeElement)) {
  const beside = item.nextElementSibling ?? item.previousElementSibling;
  item.remove();
  // Not to a button: a key that is held down would decide about one price after the other.
  if (focused) (beside ? $("input", beside) : $("#held-title")).focus();
}

// What streams made of a decision: another may have come first, or another price.
const OUTCOMES = { accepted: "approved", rejected: "rejected", superseded: "unchanged, decided already or another price came since" };
const UNKNOWN = "sent; what became of it is not known yet";

/** Decide about the prices of these items, in one request. */
async function decide(meant, decision) {
  const alerts = meant.map((item) => alertOf.get(item)), focused = held.contains(document.activeElement);
  const within = meant.find((item) => item.contains(document.activeElement));
  const controls = meant.flatMap((item) => [...item.querySelectorAll("button, input")]);
  for (const control of controls) control.disabled = true;
  recount();
  try {
    const named = alerts.map(({ product_id, held_offset }) => ({ product_id, held_offset }));
    const answer = await call("/price-decisions", {
      method: "POST", body: { decision, decided_by: "console", held: named }, headers: { Accept: "application/x-ndjson" },
      signal: AbortSignal.timeout(DECIDED_MS),
    });
    const lines = (await answer.text().catch(away)).trim().split("\n").map((line) => JSON.parse(line));
    const status = new Map(lines.filter((line) => line.type === "verdict").map((line) => [line.line, line.status]));
    const counts = new Map();
    alerts.forEach((alert, n) => {
      const became = status.get(n + 1), said = OUTCOMES[became] ?? UNKNOWN;
      counts.set(said, (counts.get(said) ?? 0) + 1);
      if (became in OUTCOMES) decided.add(placeOf(alert));
      if (["accepted", "rejected"].includes(became)) showBecame({ ...alert, decision: { decision } });
    });
    const [[only]] = counts;
    $(".said", held).replaceChildren(...(alerts.length === 1 ? [el("bdi", {}, alerts[0].product_id), `: ${only}`]
      : [[...counts].map(([said, count]) => `${count} ${said}`).join("; ")]));
    for (const item of meant) takeAway(item, item === within);
    recount();
    if (focused && !held.querySelector(":focus:enabled")) $("#held-title").focus();
    problemOf(held);
  } catch (error) {
    for (const control of controls) control.disabled = false;
    recount();
    problemOf(held, error);
  }
}

// Searches

function search(id, look) {
  const section = $(`#${id}`);
  $("form", section).addEventListener("submit", async (event) => {
    event.preventDefault();
    const wanted = encodeURIComponent(new FormData(event.target).get("id").trim());
    $(".found", section).replaceChildren();
    try { $(".found", section).replaceChildren(...await look(wanted)); problemOf(section); }
    catch (error) { problemOf(section, error); }
  });
}

function table(names, rows) {
  const cell = (value) => el("td", typeof value === "number" ? { class: "number" } : {}, value?.nodeType ? value : value ?? "–");
  return el("table", {}, el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell)))));
}

const facts = (pairs) => el("dl", {}, ...pairs.filter(([, value]) => value != null).map(
  ([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value?.nodeType ? value : String(value)))));

search("stock", async (id) => {
  const [level, history] = await Promise.all([get(`/stock/${id}`), get(`/stock/${id}/history?limit=${LISTED}`)]);
  return [
    facts([["quantity", number.format(level.quantity)], ["version", level.version], ["since", time(level.updated_at)]]),
    table(["when", "what", "by", "outcome", "left"], history.data.map(({ logged_at, movement, outcome, code, quantity }) => [
      time(logged_at), movement.kind, movement.quantity, code ? el("span", {}, badge(outcome), ` ${code}`) : badge(outcome), quantity,
    ])),
  ];
});

/** A refused row: where, why, and what came, which may be long. */
function refusedItem({ line, code, detail, row }) {
  const sent = row?.length > 300 ? `${row.slice(0, 300)}…` : row;
  return el("li", {},
    el("div", { class: "row" }, el("strong", {}, `Line ${number.format(line)}`), el("small", {}, code)),
    el("p", {}, detail), sent ? el("code", {}, sent) : null);
}

search("ledger", async (id) => {
  const found = await get(`/events/${id}`);
  const rows = ["rows", "applied", "superseded", "duplicate", "conflict", "rejected"].map((name) => [name, found[name]]);
  return [
    facts([["status", badge(found.status)], ["type", found.type], ...rows, ["code", found.code], ["detail", found.detail],
      ["accepted", found.accepted_at && time(found.accepted_at)], ["applied at", found.applied_at && time(found.applied_at)]]),
    ...(found.errors?.length ? [el("ul", { class: "list", "aria-label": "Refused rows" }, ...found.errors.map(refusedItem))] : []),
    ...(found.errors_omitted ? [el("p", { class: "hint" }, `${number.format(found.errors_omitted)} more are not shown.`)] : []),
  ];
});

// Log in

$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  const tenant = given.get("tenant").trim();
  base = `/api/v1/tenants/${encodeURIComponent(tenant)}`;
  key = given.get("key").trim();
  if (!/^[!-~]+$/.test(key)) {  // a header cannot hold it
    problemOf(event.target, new Error("This is no API key: a key has letters, digits and - _ only. Copy it once more."));
    return;
  }
  const button = $("button", event.target);
  button.disabled = true;
  problemOf(event.target);
  try { showActivity(await get("/activity")); } catch (error) { problemOf(event.target, error); return; } finally { button.disabled = false; }
  inside = true;
  event.target.reset();
  event.target.hidden = true;
  for (const part of ["nav", "#who", "#sections"]) $(part).hidden = false;
  $("#who span").textContent = tenant;
  $("#now-title").tabIndex = -1;
  $("#now-title").focus();
  repeat($("#now"), 1000, async () => {
    const found = await get("/activity");
    showActivity(found);
    if (!found.accepting) throw new Error("Nothing is taken in at the moment: Kafka does not answer the gateway. What is sent is refused (503), to be sent again.");
  });
  repeat($("#uploads"), 2000, showUploads);
  repeat($("#held"), 3000, showHeld);  // an alert comes some milliseconds before it can be read
  followAlerts();
});
$("#leave").addEventListener("click", () => leave());
if (location.hash === ENDED) {
  history.replaceState(null, "", location.pathname);
  problemOf($("#login"), new Error("Your API key does not work any more: it was revoked or has expired. Log in with another one."));
  $("#login input").focus();
}
