// The page: files become cards, a few at a time go to the service, and what stands above them is kept true.
import { Card } from "./card.js";
import * as intake from "./intake.js";
import * as words from "./language.js";
import * as live from "./live.js";
import * as service from "./service.js";
import { shrink } from "./shrink.js";
import { LOW, MARGIN } from "./verdict.js";

const { t } = words;
const byId = (id) => document.getElementById(id);

// Decoding a large photograph takes the browser 50 MB, so few at once even on a phone.
const AT_ONCE = 3;
const TRIES_WHEN_BUSY = 4;
const MAX_TOP_K = 10;
const LOOK_AGAIN_MS = 2_000;
const ASK_AGAIN_S = 5;
// The service, or what is behind it: a balancer answers for a service that is away.
const AWAY = ["unreachable", "unavailable"];
// The engines' titles by name, which the service writes into the page.
const ENGINES = JSON.parse(byId("model").dataset.engines);

const cards = new Set();
const queue = [];
let running = 0;
let model = null;
let labels = null;
let looking = null;

// What is said to all: a toast to see, a live region to hear.

let unsaid = [];
function announce(text) {
  // Answers that come together are told together: a live region forgets what is written over.
  if (!unsaid.length) {
    setTimeout(() => {
      byId("announcer").textContent = unsaid.join(". ");
      unsaid = [];
    }, 400);
  }
  unsaid.push(text);
}

let toastTimer;
function toast(text) {
  announce(text);
  byId("toast").textContent = text;
  byId("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (byId("toast").hidden = true), 6_000);
}

// The model that serves.

/** Ask for the model until it is told; the code of what kept it from being told this time, if anything did. */
async function loadModel() {
  let code;
  try {
    const found = await service.model();
    labels = found.weights.origin === "demo" ? await service.labels() : null;
    model = found;
    byId("top-k").max = Math.min(MAX_TOP_K, model.classes);
    byId("top-k-value").textContent = topK(); // the slider went along with its end, and told nobody
    live.setSlo(model.slo_ms);
    byId("key").hidden = true;
  } catch (error) {
    ({ code } = error);
    stumble(error);
    // Of an answer like 429 nothing else would come.
    if (code !== "unauthorized" && !AWAY.includes(code)) setTimeout(loadModel, 1e3 * (error.retryAfter || ASK_AGAIN_S));
  }
  renderModel();
  return code;
}

function renderModel() {
  byId("model").textContent = model ? modelLine() : t("model_unknown");
  byId("demo").hidden = !labels;
  if (labels) {
    const names = labels[words.language] ?? labels[words.fallback];
    byId("demo-classes").textContent = t("demo_classes", { count: names.length, names: names.join(t("list_separator")) });
  }
  const classes = model ? words.number(model.classes) : "…";
  const low = Math.max(LOW, model?.min_confidence ?? 0);
  byId("rule").textContent = t("rule", { low: words.percent(low), margin: words.number(100 * MARGIN), classes });
}

function modelLine() {
  const { weights, precision, runner, classes } = model;
  const known = ["imagenet", "demo"].includes(weights.origin);
  return t("model", {
    weights: known ? t(`weights_${weights.origin}`) : t("weights_other", { origin: weights.origin }),
    precision,
    engine: ENGINES[runner.engine] ?? runner.engine,
    device: runner.device.toUpperCase(),
    classes: words.number(classes),
  });
}

// When the service is away, or wants a key.

/** Do what an error asks of the page as a whole; the card tells the rest. */
function stumble({ code }) {
  if (code === "unauthorized") {
    if (byId("key").hidden) announce(t("key_wanted"));
    byId("key").hidden = false;
  } else if (AWAY.includes(code) && !looking) {
    look();
    looking = setInterval(look, LOOK_AGAIN_MS);
  }
}

async function look() {
  if (document.hidden) return;
  const ready = await service.isReady();
  if (!looking) return; // a later look has found it meanwhile
  byId("offline").hidden = ready;
  const told = ready ? "" : t("offline");
  // Written again, it would be read out again.
  if (byId("offline").textContent !== told) byId("offline").textContent = told;
  if (!ready) return;
  clearInterval(looking);
  looking = null;
  if (!model) await loadModel();
  const stranded = [...cards].filter(({ state, problem, rescued }) => {
    // Once by itself: a file that breaks the connection each time must not be sent for ever.
    return state === "failed" && AWAY.includes(problem.code) && !rescued;
  });
  if (stranded.length) toast(t("online"));
  for (const card of stranded) {
    card.rescued = true;
    enqueue(card);
  }
}

byId("key").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = byId("key-value");
  if (!service.isKey(field.value.trim())) {
    toast(t("key_form"));
    return;
  }
  service.setKey(field.value.trim());
  if ((await loadModel()) === "unauthorized") {
    toast(t("key_wrong"));
    field.select();
    return;
  }
  field.value = "";
  byId("key").hidden = true;
  byId("choose").focus(); // the field went, and the focus with it
  for (const card of cards) {
    if (card.state === "failed" && card.problem.code === "unauthorized") enqueue(card);
  }
});

// Cards.

const topK = () => Number(byId("top-k").value);

function enter(card, state, facts) {
  card.enter(state, facts);
  card.render(topK());
  if (state === "done" || state === "failed") announce(card.sentence());
}

function add(files) {
  if (!files.length) return;
  const first = !cards.size;
  const added = files.map((file) => new Card(file, act));
  byId("results").hidden = false;
  document.body.classList.add("busy");
  for (const card of added) {
    cards.add(card);
    byId("cards").append(card.element);
    enqueue(card);
  }
  if (!first) added[0].element.scrollIntoView({ block: "nearest" });
}

function enqueue(card) {
  enter(card, "waiting");
  queue.push(card);
  next();
}

function next() {
  while (running < AT_ONCE && queue.length) {
    running += 1;
    send(queue.shift()).finally(() => {
      running -= 1;
      next();
    });
  }
}

async function send(card) {
  const { signal } = card.aborter;
  try {
    await modelKnown;
    signal.throwIfAborted();
    enter(card, "preparing");
    const original = byId("original").checked || !model;
    const image = original ? card.file : await shrink(card.file, model.preprocessing);
    await image.slice(0, 1).arrayBuffer().catch(() => {
      throw new service.ServiceError("unreadable_file");
    });
    const reply = await classify(card, image, signal);
    enter(card, "done", { reply, sent: image.size });
  } catch (error) {
    if (signal.aborted) return;
    const problem = error instanceof service.ServiceError ? error : new service.ServiceError("other", String(error));
    enter(card, "failed", { problem });
    stumble(problem);
  }
}

/** The service's reply; while it says that it is busy, ask again when it says to. */
async function classify(card, image, signal) {
  const progress = (share) => enter(card, share < 1 ? "uploading" : "analysing", { share });
  const options = { topK: model && Math.min(MAX_TOP_K, model.classes), signal, progress };
  for (let left = TRIES_WHEN_BUSY - 1; ; left -= 1) {
    signal.throwIfAborted();
    progress(0);
    try {
      return await service.classify(image, options);
    } catch (error) {
      if (!left || !error.retryAfter || error.retryAfter > 30) throw error;
      enter(card, "busy", { seconds: error.retryAfter });
      await new Promise((resolve) => {
        setTimeout(resolve, 1e3 * error.retryAfter);
        signal.addEventListener("abort", resolve, { once: true });
      });
    }
  }
}

function act(card, action) {
  if (action === "remove") remove(card);
  else if (action === "retry") {
    card.element.focus(); // the button goes, and the focus would with it
    card.rescued = false;
    enqueue(card);
  } else {
    const text = action === "json" ? JSON.stringify(card.reply, null, 2) : service.curl(card.file.name, topK());
    copy(text).then(
      () => toast(t("copied")),
      () => toast(t("copy_failed")),
    );
  }
}

function remove(card) {
  const neighbour = card.element.nextElementSibling ?? card.element.previousElementSibling;
  drop(card);
  (neighbour?.querySelector(".remove") ?? byId("choose")).focus();
  announce(t("removed", { name: card.file.name }));
}

function drop(card) {
  card.remove();
  cards.delete(card);
  if (queue.includes(card)) queue.splice(queue.indexOf(card), 1);
  if (!cards.size) {
    byId("results").hidden = true;
    document.body.classList.remove("busy");
  }
}

async function copy(text) {
  // The clipboard's interface is there on https and localhost only; a board in the local network has neither.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus(); // the field took it
  if (!done) throw new Error("copy was refused");
}

// Controls.

byId("top-k").addEventListener("input", () => {
  byId("top-k-value").textContent = topK();
  for (const card of cards) card.render(topK());
});

byId("clear").addEventListener("click", () => {
  for (const card of [...cards]) drop(card);
  byId("choose").focus();
  announce(t("cleared"));
});

const switches = [...document.querySelectorAll("[data-language]")];
const markLanguage = () => {
  for (const button of switches) button.setAttribute("aria-pressed", button.dataset.language === words.language);
};
for (const button of switches) {
  button.addEventListener("click", async () => {
    try {
      await words.choose(button.dataset.language);
    } catch {
      if (await service.isReady()) toast(t("reload")); // its words have another address now
      else stumble(new service.ServiceError("unreachable"));
      return;
    }
    markLanguage();
    renderModel();
    live.render();
    if (looking) byId("offline").textContent = t("offline");
    for (const card of cards) card.render(topK());
  });
}

byId("photo").hidden = !matchMedia("(pointer: coarse)").matches;
markLanguage();
renderModel();
intake.listen(add, toast);
live.watch(stumble);
const modelKnown = loadModel();
