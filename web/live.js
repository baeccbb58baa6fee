// The live panel: what /metrics says of the last seconds, asked for only while the panel is open and in view.
import { milliseconds, number, t } from "./language.js";
import * as service from "./service.js";

const EVERY_MS = 2_500;
const WINDOW_MS = 10_000;

const panel = document.getElementById("live");
const byId = (id) => document.getElementById(id);
let snapshots = [];
let slo = null;
let timer = null;

/** What the panel needs of Prometheus's text: totals since the start, summed over processes. */
export function parse(text, time) {
  const found = { time, buckets: new Map(), batches: 0, images: 0, queue: 0 };
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name === "resnet18_stage_seconds_bucket" && labels.includes('stage="total"')) {
      const edge = Number(/le="([^"]+)"/.exec(labels)[1].replace("+Inf", "Infinity"));
      found.buckets.set(edge, (found.buckets.get(edge) ?? 0) + Number(value));
    } else if (name === "resnet18_batch_images_count") found.batches += Number(value);
    else if (name === "resnet18_batch_images_sum") found.images += Number(value);
    else if (name === "resnet18_queue_images") found.queue += Number(value);
  }
  return found;
}

/** Seconds below which the share `q` of the requests between two snapshots took; null when there were none. */
export function quantile(q, before, after) {
  const edges = [...after.buckets.keys()].sort((a, b) => a - b);
  const count = (edge) => after.buckets.get(edge) - (before.buckets.get(edge) ?? 0);
  const total = count(Infinity);
  if (!(total > 0)) return null;
  const index = edges.findIndex((edge) => count(edge) >= q * total);
  const [low, high] = [edges[index - 1] ?? 0, edges[index]];
  if (high === Infinity) return low;
  const below = index ? count(low) : 0;
  return low + ((high - low) * (q * total - below)) / (count(high) - below);
}

/** Show what the snapshots tell, in the language that is wanted now. */
export function render() {
  const [before, after] = [snapshots[0], snapshots.at(-1)];
  const show = (id, text) => (byId(id).textContent = text ?? "–");
  show("live-slo-name", t("live_slo", { slo: slo ? milliseconds(slo) : "…" }));
  delete byId("live-slo").dataset.met;
  if (snapshots.length < 2) {
    for (const id of ["rate", "p50", "p99", "batch", "queue", "slo"]) show(`live-${id}`);
    return;
  }
  const answered = after.buckets.get(Infinity) - (before.buckets.get(Infinity) ?? 0);
  const batches = after.batches - before.batches;
  const [p50, p99] = [0.5, 0.99].map((q) => quantile(q, before, after));
  show("live-rate", number((1e3 * answered) / (after.time - before.time), 1));
  show("live-p50", p50 === null ? null : milliseconds(1e3 * p50));
  show("live-p99", p99 === null ? null : milliseconds(1e3 * p99));
  show("live-batch", batches > 0 ? number((after.images - before.images) / batches, 1) : null);
  show("live-queue", number(after.queue));
  if (p99 === null || !slo) {
    show("live-slo", t("live_idle"));
  } else {
    byId("live-slo").dataset.met = 1e3 * p99 <= slo;
    show("live-slo", t(1e3 * p99 <= slo ? "live_met" : "live_missed"));
  }
}

async function poll() {
  // Closed already, though the event that tells so is still to come.
  if (!panel.open) return;
  try {
    const next = parse(await service.metrics(), performance.now());
    const last = snapshots.at(-1);
    // Fewer requests than before: the service was started anew, and its counters with it.
    if (last && (next.buckets.get(Infinity) ?? 0) < (last.buckets.get(Infinity) ?? 0)) snapshots = [];
    snapshots = [...snapshots.filter(({ time }) => next.time - time <= WINDOW_MS), next];
  } catch (error) {
    snapshots = []; // figures of before would pretend that the service is there
    stumble(error);
  }
  render();
}

function start() {
  clearInterval(timer);
  timer = null;
  snapshots = [];
  if (panel.open && !document.hidden) {
    poll();
    timer = setInterval(poll, EVERY_MS);
  }
}

let stumble;

/** Poll while the panel is open and the page in view; `onError` is told why there are no figures. */
export function watch(onError) {
  stumble = onError;
  panel.addEventListener("toggle", start);
  document.addEventListener("visibilitychange", start);
  start();
}

/** Tell the SLO in milliseconds that the figures are held against. */
export function setSlo(milliseconds) {
  slo = milliseconds;
  render();
}
