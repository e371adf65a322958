// The first page: how things are, live. A client of the REST API like any other; it holds no rule of its own.
//
// The event stream says that something changed; what is then shown is always asked for. When neither a stream nor an
// answer has come for a while, the page says since when what it shows may be stale.

const STATES = {
  seeding: ["busy", "◔", "seeding"],
  mirroring: ["good", "✓", "mirroring"],
  paused: ["wait", "Ⅱ", "paused"],
  held: ["wait", "✋", "held"],
  faulted: ["bad", "✕", "faulted"],
  switching_over: ["busy", "⇢", "switching over"],
  on_standby: ["wait", "⇄", "on standby"],
  switching_back: ["busy", "⇠", "switching back"],
};
const PAGE = 200;
/** Without an event, everything is asked for again after so long. */
const POLL_MS = 10_000;
/** Many events at once cause one question. */
const SETTLE_MS = 250;
/** Without any sign of life for so long, what is shown may be stale. */
const STALE_MS = 20_000;
/** Before the stream is opened again. */
const RECONNECT_MS = 2_000;

const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("understudy.token");
let heardAt = 0;
let lastEventId = null;
let pages = 1;
let refreshing = false;
let again = false;
let pending = null;
let stream = null;
/** Rises with every token given or forgotten: a stream of an earlier one ends. */
let visit = 0;

class Refused extends Error {}

async function ask(path) {
  const response = await fetch(path, { headers: { Authorization: `Bearer ${token}` }, cache: "no-store" });
  if (response.status === 401 || response.status === 403) {
    const problem = await response.json().catch(() => ({}));
    throw new Refused(problem.detail ?? "the token was refused");
  }
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  heardAt = Date.now();
  return response.json();
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "className") node.className = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

function ago(time) {
  if (!time) return "never";
  return `${duration(Math.max(0, (Date.now() - Date.parse(time)) / 1000))} ago`;
}

function when(time) {
  return time ? element("time", { datetime: time, title: new Date(time).toLocaleString() }, ago(time)) : "never";
}

function state(name) {
  const [tone, icon, word] = STATES[name] ?? ["bad", "?", name];
  return element("span", { className: `state ${tone}` }, element("span", { "aria-hidden": "true" }, `${icon} `), word);
}

/** Why, and what to do: what the API says as parts of a sentence becomes two sentences. */
function reasonAndRemedy(className, reason, remedy) {
  const ended = (text) => /[.!?]$/.test(text) ? text : `${text}.`;
  const whatToDo = remedy ? [" ", element("strong", {}, ended(remedy[0].toUpperCase() + remedy.slice(1)))] : [];
  return element("p", { className }, ended(reason), ...whatToDo);
}

function showLink(link) {
  const [tone, icon, word] = link.connected ? ["good", "✓", "connected"] : ["bad", "✕", "silent"];
  const mark = element("span", { className: `state ${tone}` }, element("span", { "aria-hidden": "true" }, `${icon} `), word);
  const heard = link.heard_at ? [" · source gateway heard ", when(link.heard_at)] : [" · no source gateway has been heard of yet"];
  $("link").replaceChildren(mark, ...heard);
}

function showServer(server) {
  const problem = server.trouble;
  const failed = server.last_check?.findings.filter((finding) => finding.level === "failed") ?? [];
  const [tone, icon, word] = problem || failed.length
    ? ["bad", "✕", "trouble"]
    : server.last_checked_at ? ["good", "✓", "checked"] : ["wait", "○", "not checked yet"];
  return element("li", { className: "card" },
    element("h3", {}, server.name),
    element("p", { className: "quiet" }, `${server.role} · ${server.mailboxes} ${server.mailboxes === 1 ? "mailbox" : "mailboxes"}`),
    element("p", {}, element("span", { className: `state ${tone}` }, element("span", { "aria-hidden": "true" }, `${icon} `), word),
      ...(server.last_checked_at && !problem ? [" ", when(server.last_checked_at)] : [])),
    problem ? reasonAndRemedy("trouble", problem.reason, problem.remedy) : null,
    ...failed.map((finding) => reasonAndRemedy("trouble", finding.meaning, finding.remedy)));
}

function showMailbox(mailbox) {
  const { lag, progress } = mailbox;
  const waiting = lag.transactions === 0 ? "nothing" : `${lag.transactions}, oldest ${duration(lag.seconds)}`;
  const copied = progress.messages_total > 0
    ? `${progress.messages_done.toLocaleString()} of ${progress.messages_total.toLocaleString()}`
    : mailbox.state === "seeding" ? "counting…" : "–";
  const stateCell = element("td", { role: "cell" }, state(mailbox.state), mailbox.detail ? reasonAndRemedy("detail", mailbox.detail.reason, mailbox.detail.remedy) : null);
  if (mailbox.set_aside > 0) {
    const messages = mailbox.set_aside === 1 ? "1 message is" : `${mailbox.set_aside} messages are`;
    stateCell.append(element("p", { className: "detail wait" }, `${messages} not on the standby as they are.`));
  }
  // Named again in each cell and by role: on a narrow screen every row is a card of its own.
  const cell = (label, className, content) => element("td", { className, role: "cell", "data-label": label }, content);
  return element("tr", { role: "row" },
    element("th", { scope: "row", role: "rowheader" }, mailbox.address),
    stateCell,
    cell("From, to", "", `${mailbox.primary} → ${mailbox.standby}`),
    cell("Not yet applied", "number", waiting),
    cell("Copied", "number", copied),
    cell("Last change", "", when(mailbox.last_transaction_at)));
}

function noMailboxes() {
  const words = "No mailbox is like that. Clear the filter to see all of them.";
  return element("tr", { role: "row" }, element("td", { className: "quiet", role: "cell", colspan: "6" }, words));
}

async function mailboxes() {
  const items = [];
  let next = null;
  for (let page = 0; page < pages; page += 1) {
    const query = new URLSearchParams({ limit: String(PAGE) });
    if ($("q").value.trim()) query.set("q", $("q").value.trim());
    if ($("state").value) query.set("state", $("state").value);
    if (next) query.set("after", next);
    const answer = await ask(`/api/v1/mailboxes?${query}`);
    items.push(...answer.items);
    next = answer.next;
    if (!next) break;
  }
  return { items, more: next !== null };
}

async function refresh() {
  if (refreshing) {
    again = true;
    return;
  }
  refreshing = true;
  try {
    const [status, list] = await Promise.all([ask("/api/v1/status"), mailboxes()]);
    show(status, list);
  } catch (error) {
    if (error instanceof Refused) forget(error.message);
    else if (heardAt === 0) say("No answer yet; asking again every 10 s.");
  } finally {
    refreshing = false;
    if (again) {
      again = false;
      soon();
    }
  }
}

/** Says a sentence, its commands set apart; only a new one is read out. */
function say(sentence) {
  const parts = sentence.split("`");
  if ($("sentence").textContent === parts.join("")) return;
  $("sentence").replaceChildren(...parts.map((part, index) => index % 2 === 1 ? element("code", {}, part) : part));
}

function show(status, list) {
  say(status.sentence);
  showLink(status.link);
  $("servers").replaceChildren(...status.servers.map(showServer));
  $("servers-empty").hidden = status.servers.length > 0;
  const none = status.mailboxes.total === 0;
  $("mailboxes-section").hidden = none && status.servers.length === 0;
  $("mailboxes-empty").hidden = !none;
  $("mailboxes-tools").hidden = none;
  $("mailboxes").replaceChildren(...(list.items.length > 0 ? list.items.map(showMailbox) : [noMailboxes()]));
  const filtered = $("q").value.trim() || $("state").value;
  const shown = `${list.items.length}${list.more ? "+" : ""}`;
  $("shown").textContent = filtered
    ? `${shown} of ${status.mailboxes.total} mailboxes match`
    : `${shown} of ${status.mailboxes.total} mailboxes`;
  $("more").hidden = !list.more;
  freshness();
}

function soon() {
  pending ??= setTimeout(() => {
    pending = null;
    refresh();
  }, SETTLE_MS);
}

function freshness() {
  const node = $("freshness");
  node.hidden = !token || heardAt === 0;
  const stale = Date.now() - heardAt > STALE_MS;
  const text = stale ? `stale since ${new Date(heardAt).toLocaleTimeString()}` : stream ? "live" : "live, asking every 10 s";
  node.classList.toggle("stale", stale);
  node.classList.toggle("live", !stale);
  if (node.textContent !== text) node.textContent = text;
}

// EventSource cannot send a token, so the stream is read by hand (https://html.spec.whatwg.org/#parsing-an-event-stream).
async function listen(mine) {
  const current = visit;
  while (visit === current) {
    const controller = new AbortController();
    try {
      const headers = { Authorization: `Bearer ${mine}`, Accept: "text/event-stream" };
      if (lastEventId) headers["Last-Event-ID"] = lastEventId;
      const response = await fetch("/api/v1/events", { headers, signal: controller.signal, cache: "no-store" });
      if (response.ok) {
        stream = controller;
        await read(response.body);
      }
    } catch {
      // The connection went away; below it is opened again.
    }
    stream = null;
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

async function read(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heardAt = Date.now();
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const id = frame.match(/^id: (.*)$/m);
      if (id) lastEventId = id[1];
      if (/^event: /m.test(frame)) soon();
    }
  }
}

function enter(given) {
  token = given;
  visit += 1;
  sessionStorage.setItem("understudy.token", token);
  $("enter").hidden = true;
  $("screen").hidden = false;
  $("leave").hidden = false;
  refresh();
  listen(token);
}

function forget(reason) {
  token = null;
  visit += 1;
  heardAt = 0;
  sessionStorage.removeItem("understudy.token");
  stream?.abort();
  $("enter").hidden = false;
  $("screen").hidden = true;
  $("leave").hidden = true;
  $("refused").hidden = !reason;
  $("refused").textContent = reason ? `Not let in: ${reason}.` : "";
  freshness();
  $("token").focus();
}

/** The filter lives in the address, so that it can be sent as a link. */
function filter() {
  const query = new URLSearchParams();
  if ($("q").value.trim()) query.set("q", $("q").value.trim());
  if ($("state").value) query.set("state", $("state").value);
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  pages = 1;
  soon();
}

for (const [name, [, icon, word]] of Object.entries(STATES)) {
  $("state").append(element("option", { value: name }, `${icon} ${word}`));
}
const asked = new URLSearchParams(location.search);
$("q").value = asked.get("q") ?? "";
$("state").value = asked.get("state") ?? "";
$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  $("token").value = "";
  if (given) {
    enter(given);
    $("main").focus();
  }
});
$("leave").addEventListener("click", () => forget(""));
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("q").addEventListener("input", filter);
$("state").addEventListener("change", filter);
$("more").addEventListener("click", () => {
  pages += 1;
  refresh();
});
setInterval(() => token && refresh(), POLL_MS);
setInterval(freshness, 1000);
if (token) enter(token);
else forget("");
