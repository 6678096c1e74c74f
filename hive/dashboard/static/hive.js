// Client code of every page: updates in place without disturbing input, sends forms, updates clocks, shows turns.
// Untrusted text is only ever set with textContent; markup comes only from the dashboard's own templates.

const HEARTBEAT_MS = 5000, TRANSIT_MS = 2000, SETTLE_MS = 60, AT_MOST_EVERY_MS = 250, TOAST_MS = 6000, SCREEN_LINES = 2000;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const csrf = () => $("meta[name=csrf]")?.content ?? "";

// ---- Updates in place: fetch the page again and patch the differences into the document.

const touched = new WeakSet();
document.addEventListener("input", (event) => touched.add(event.target));

function same(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id || "") === (other.id || "") &&
    (one.nodeName !== "INPUT" || (one.name === other.name && one.type === other.type));
}

function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  if (old.hasAttribute("data-live") || old.getAttribute("aria-busy") === "true") return;
  const kept = new Set(["value", "checked", "selected"]);
  if (old.nodeName === "DETAILS" || old.nodeName === "DIALOG") kept.add("open");
  const ticking = old.matches("time[data-ago],[data-since],[data-deadline]");
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !kept.has(name) && !(name === "disabled" && old.matches("[data-busy]"))) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (!kept.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  if (old.nodeName === "INPUT" && old.type === "hidden") { old.value = fresh.value; return; }
  if (old.nodeName === "TEXTAREA" || (ticking && old.dataset.since === fresh.dataset.since)) return;
  const scroll = old.hasAttribute("data-keep-scroll") ? [old.scrollTop, old.scrollLeft] : null;
  morphChildren(old, fresh);
  if (scroll) [old.scrollTop, old.scrollLeft] = scroll;
}

function morphChildren(old, fresh) {
  const named = new Map($$(":scope > [id]", old).map((child) => [child.id, child]));
  const wantedIds = new Set($$(":scope > [id]", fresh).map((child) => child.id));
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    while (place?.id && !wantedIds.has(place.id)) place = dropped(place);  // Otherwise later nodes would not match their counterparts.
    let found = wanted.id ? named.get(wanted.id) : null;
    if (!found && place && same(place, wanted) && !place.id) found = place;
    if (found && same(found, wanted)) {
      if (found !== place) old.insertBefore(found, place); else place = place.nextSibling;
      morph(found, wanted);
    } else {
      old.insertBefore(document.importNode(wanted, true), place);
    }
  }
  while (place) place = dropped(place);
}

// Removes a node, unless the user is typing in it: then it stays until the field loses focus. Returns the next node.
function dropped(place) {
  const next = place.nextSibling, field = document.activeElement;
  if (place.nodeType === Node.ELEMENT_NODE && place.contains(field) && beingTyped(field)) {
    field.addEventListener("blur", () => refresh(), { once: true });
  } else {
    place.remove();
  }
  return next;
}

const beingTyped = (field) => field.matches("input,textarea,select") && touched.has(field) && field.value;

let fetching = false, again = false, timer = 0, fetchedAt = 0;
function soon() {
  if (timer) return;
  const wait = Math.max(SETTLE_MS, AT_MOST_EVERY_MS - (Date.now() - fetchedAt));
  timer = setTimeout(() => { timer = 0; refresh(); }, wait);
}

async function refresh() {
  if (!$("#main") || $("[data-static]")) return;
  if (fetching) { again = true; return; }
  fetching = true;
  try {
    fetchedAt = Date.now();
    const reply = await fetch(location.pathname + location.search, { headers: { Accept: "text/html", "X-Hive-Background": "1" }, redirect: "manual" });
    if (reply.type === "opaqueredirect" || reply.status === 401) { location.reload(); return; }
    if (reply.status === 404) { if (location.pathname.startsWith("/agent/")) location.assign("/"); return; }
    if (!reply.ok) { say("lost"); return; }
    put(await reply.text());
  } catch { say("lost"); } finally {
    fetching = false;
    if (again) { again = false; soon(); }
  }
}

function put(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const id of ["main", "nav"]) {
    const now = fresh.getElementById(id);
    if (now) morphChildren(document.getElementById(id), now);
  }
  document.title = fresh.title;
  document.body.toggleAttribute("data-transit", fresh.body.hasAttribute("data-transit"));
  document.body.dataset.seq = fresh.body.dataset.seq ?? "";
  tick();
}

// ---- The event stream: each event triggers an update.

let source = null, state = "connecting";
function say(now) {
  state = now;
  const sign = $("#live");
  if (sign) { sign.dataset.state = now; sign.textContent = { live: "live", lost: "not live, reconnecting", connecting: "connecting" }[now]; }
}

function listen() {
  if (!$("#live")) return;
  source = new EventSource(`/api/stream?after=${document.body.dataset.seq || ""}`);
  source.onopen = () => { say("live"); soon(); };
  source.onmessage = (event) => { notify(JSON.parse(event.data)); soon(); };
  source.onerror = () => {
    say("lost");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

function beat() {
  const transit = document.body.hasAttribute("data-transit");
  setTimeout(() => { if (!document.hidden) refresh().then(() => { if (state === "lost" && source?.readyState === EventSource.OPEN) say("live"); }); beat(); }, transit ? TRANSIT_MS : HEARTBEAT_MS);
}

// ---- Clocks and durations

function duration(ms) {
  if (ms > 0 && ms < 1000) return ms >= 100 ? `${(ms / 1000).toFixed(1)}s` : `${Math.round(ms)}ms`;
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h ${Math.floor(s % 3600 / 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.floor(s % 86400 / 3600)}h`;
}

function tick() {
  const now = Date.now();
  for (const one of $$("[data-since]")) write(one, duration(wholeSeconds(now - one.dataset.since)));
  for (const one of $$("[data-until]")) one.hidden = one.dataset.until <= now;
  for (const one of $$("[data-deadline]")) write(one, duration(wholeSeconds(one.dataset.deadline - now)));
  for (const one of $$("time[data-ago]")) {
    const age = now - Date.parse(one.dateTime);
    write(one, age < 5000 ? "now" : age < 7 * 86400000 ? `${duration(age).split(" ")[0]} ago` : one.dateTime.slice(0, 10));
  }
}
const wholeSeconds = (ms) => Math.floor(ms / 1000) * 1000;
const write = (one, text) => { if (one.textContent !== text) one.textContent = text; };

// ---- Forms: a spinner while sending, the button enabled again afterwards, a toast, a confirmation for destructive actions.

function toast(text, bad = false) {
  const one = document.createElement("div");
  one.className = bad ? "toast bad" : "toast";
  one.textContent = text;
  $("#toasts")?.append(one);
  setTimeout(() => one.remove(), bad ? TOAST_MS * 2 : TOAST_MS);
}

function sure(text) {
  return new Promise((resolve) => {
    const dialog = $("#confirm");
    $("#confirm-text").textContent = text;
    dialog.returnValue = "no";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.showModal();
  });
}

async function post(form, button) {
  const question = button?.dataset.confirm ?? form.dataset.confirm;
  if (question && !(await sure(question))) return;
  const buttons = $$("button", form).filter((one) => !one.disabled);
  const fields = new URLSearchParams(new FormData(form));
  if (button?.name) fields.set(button.name, button.value);
  for (const one of buttons) { one.disabled = true; one.dataset.busy = ""; }
  button?.setAttribute("aria-busy", "true");
  const path = new URL(button?.hasAttribute("formaction") ? button.formAction : form.action).pathname;
  try {
    const reply = await fetch(path, { method: "POST", body: fields, headers: { Accept: "application/json", "X-CSRF-Token": csrf() } });
    const said = await reply.json().catch(() => ({ error: `The dashboard answered ${reply.status}.` }));
    if (reply.status === 401) { location.reload(); return; }
    if (!reply.ok) { toast(said.error ?? said.detail ?? `The request failed (${reply.status}).`, true); return; }
    if (said.next) { location.assign(said.next); return; }
    if (said.token) fresh(said);
    if (said.message) toast(said.message);
    if (!form.hasAttribute("data-no-reset")) form.reset();
    for (const field of form.elements) touched.delete(field);
  } catch {
    toast("The dashboard is not reachable. The request may have been carried out; check before you retry.", true);
  } finally {
    for (const one of buttons) { one.disabled = false; delete one.dataset.busy; }
    button?.removeAttribute("aria-busy");
    refresh();
  }
}

function fresh(said) {
  const box = $("#fresh-token");
  if (!box) return;
  box.hidden = false;
  box.textContent = `${said.name}: ${said.token}`;
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.id === "sign-in") { event.preventDefault(); signIn(form); return; }
  if (!form.matches("[data-post]")) return;
  event.preventDefault();
  post(form, event.submitter);
});
document.addEventListener("change", (event) => {
  const form = event.target.closest?.("form[data-auto]");
  if (event.target.dataset?.into) { const field = document.getElementById(event.target.dataset.into); field.value = event.target.value; }
  if (form && event.target.matches("select,input[type=range]")) form.requestSubmit();
});
document.addEventListener("input", (event) => {
  if (event.target.dataset?.into) document.getElementById(event.target.dataset.into).value = event.target.value;
});

async function signIn(form) {
  const button = $("button", form), error = $(".error", form);
  button.disabled = true;
  button.setAttribute("aria-busy", "true");
  try {
    const reply = await fetch("/login", { method: "POST", body: new URLSearchParams(new FormData(form)), headers: { Accept: "application/json" } });
    const said = await reply.json();
    if (reply.ok) { location.assign(said.next); return; }
    error.textContent = said.error;
  } catch { error.textContent = "The dashboard is not reachable."; }
  button.disabled = false;
  button.removeAttribute("aria-busy");
}

// A login link has its secret in the fragment (after #), which browsers do not send to servers.
function takeLink() {
  if (!$("#sign-in") || location.hash.length < 2) return;
  const secret = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  $("#token").value = secret;
  signIn($("#sign-in"));
}
takeLink();
addEventListener("hashchange", takeLink);

// ---- The terminal of an agent's page

const brief = (value) => typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value);
function words(line) {
  switch (line.type ?? line.kind) {
    case "turn_started": return `▶ turn started, woken by ${brief(line.wake_from)} (${brief(line.messages)} message${line.messages === 1 ? "" : "s"})`;
    case "turn_ended": return `■ ${brief(line.result_kind ?? line.result ?? "ended")}` + (line.duration_ms != null ? ` after ${duration(line.duration_ms)}` : "") + (line.input_tokens != null ? `, ${line.input_tokens} in, ${line.output_tokens} out` : "") + (line.note ? ` – ${line.note}` : "");
    case "tool_call": return `⚙ ${brief(line.name ?? line.tool)} ${brief(line.input ?? line.arguments ?? line.text)}`;
    case "tool_result": return `↳ ${brief(line.text ?? line.content ?? line.output)}`;
    case "login_url": return `Open this URL, then submit the code: ${brief(line.url)}`;
    case "login_result": return `${line.ok ? "✓" : "✗"} ${brief(line.text)}`;
    default: return brief(line.text ?? line);
  }
}

function show(screen, lines) {
  const atEnd = screen.scrollHeight - screen.scrollTop - screen.clientHeight < 40;
  for (const line of lines) {
    const row = document.createElement("div"), at = document.createElement("time"), text = document.createElement("span");
    row.className = String(line.type ?? line.kind ?? "text").replace(/[^a-z_]/g, "");
    if (row.className === "turn_ended" && (line.result_kind ?? line.result) !== "ok") row.classList.add("bad");
    at.textContent = String(line.at ?? "").slice(11, 19);
    text.textContent = words(line);
    row.append(at, text);
    screen.append(row);
    if (line.type === "login_url") offer(line);
  }
  while (screen.childElementCount > SCREEN_LINES) screen.firstElementChild.remove();
  if (atEnd) screen.scrollTop = screen.scrollHeight;
}

function offer(line) {
  const place = $("#login-url");
  if (!place) return;
  place.replaceChildren();
  if (line.link) {
    const link = document.createElement("a");
    link.href = line.url;
    link.target = "_blank";
    link.rel = "noopener noreferrer";
    link.textContent = line.url;
    place.append(link);
  } else place.textContent = line.url;
}

function watch(screen) {
  const turns = new EventSource(screen.dataset.stream);
  turns.addEventListener("history", (event) => { screen.replaceChildren(); show(screen, JSON.parse(event.data)); screen.scrollTop = screen.scrollHeight; });
  turns.addEventListener("lines", (event) => show(screen, JSON.parse(event.data)));
  turns.onerror = () => { if (turns.readyState === EventSource.CLOSED) setTimeout(() => watch(screen), 2000); };
}

// ---- Browser notifications, if enabled

const TELLS = {
  QuestionAdded: (data) => data.target ? null : `${data.asker} asks: ${data.question}`,
  ApprovalRequested: (data) => data.host ? `${data.agent} wants to connect to ${data.host}` : `Approve? ${data.kind} ${data.agent}`,
  NeedsLogin: (data) => `${data.agent} needs a login`,
  Crashed: (data) => `${data.agent} crashed: ${data.reason}${data.last_line ? `: ${data.last_line}` : ""}`,
  DiskNearlyFull: (data) => `the disk of ${data.agent} is nearly full`,
  DiskFull: (data) => `the disk of ${data.agent} is full`,
  BudgetReached: (data) => `${data.agent} has used up its budget`,
};
const wanted = () => localStorage.getItem("hive-notify") === "yes" && window.Notification?.permission === "granted";
function notify(event) {
  const text = TELLS[event.type]?.(event.data);
  if (text && document.hidden && wanted()) new Notification("hive", { body: text.slice(0, 300), tag: `hive-${event.seq}` });
}
function notifyState() {
  const place = $("#notify-state");
  if (place) place.textContent = wanted() ? "on while this page is in the background" : window.Notification ? "off" : "not supported by this browser";
}
document.addEventListener("click", async (event) => {
  if (event.target.id === "notify") {
    if (wanted()) localStorage.setItem("hive-notify", "no");
    else if ((await window.Notification?.requestPermission()) === "granted") localStorage.setItem("hive-notify", "yes");
    notifyState();
  }
  if (event.target.id === "doctor") {
    event.target.disabled = true;
    event.target.setAttribute("aria-busy", "true");
    const reply = await fetch("/api/doctor", { headers: { Accept: "application/json" } }).then((one) => one.json()).catch(() => ({}));
    const rows = (reply.facts ?? []).map((fact) => {
      const row = document.createElement("li"), name = document.createElement("b"), says = document.createElement("span");
      name.textContent = `${fact.good ? "✓" : "!"} ${fact.name}`;
      name.className = fact.good ? "" : "bad";
      says.textContent = fact.says;
      row.append(name, says);
      if (fact.fix) { const fix = document.createElement("span"); fix.className = "fix"; fix.textContent = `→ ${fact.fix}`; row.append(fix); }
      return row;
    });
    $("#doctor-facts").replaceChildren(...rows);
    if (!rows.length) toast(reply.error ?? "The checks returned no result.", true);
    event.target.disabled = false;
    event.target.removeAttribute("aria-busy");
  }
});

// ---- Keyboard shortcuts

let leader = 0;
document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input,textarea,select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && field?.form) { field.form.requestSubmit($("button", field.form)); return; }
  if (event.key === "Escape" && field) { field.blur(); return; }
  if (event.key === "Enter" && !event.shiftKey && field?.id === "prompt") { event.preventDefault(); field.form.requestSubmit($("button", field.form)); return; }
  if (field || event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]") || !$("#keys")) return;
  if (event.key === "?") { event.preventDefault(); $("#keys").showModal(); }
  else if (event.key === "/") { event.preventDefault(); $("main textarea, main input:not([type=hidden])")?.focus(); }
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  else if (event.key === "g") leader = Date.now();
  else if (Date.now() - leader < 1500) $(`nav a[data-key="${CSS.escape(event.key)}"]`)?.click();
});
function step(by) {
  const cards = $$("main .card");
  const now = cards.indexOf(document.activeElement.closest?.(".card"));
  const next = cards[Math.min(Math.max(now + by, 0), cards.length - 1)];
  if (next) { next.tabIndex = -1; next.focus(); next.scrollIntoView({ block: "nearest" }); }
}

tick();
setInterval(tick, 1000);
if ($("#main")) { listen(); beat(); notifyState(); for (const screen of $$("[data-stream]")) watch(screen); }
