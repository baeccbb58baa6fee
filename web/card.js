// One image on the page: its thumbnail, how far it is, and what came of it.
import { bytes, errorTitle, localise, milliseconds, names, percent, probability, t } from "./language.js";
import { verdict } from "./verdict.js";

const template = document.getElementById("card");
// The parts of the bar, and the whole.
const STAGES = ["decode", "queue", "inference", "total"];

export class Card {
  /** `act(card, action)` is called for the buttons' actions: remove, retry, curl, json. */
  constructor(file, act) {
    this.file = file;
    this.aborter = new AbortController();
    this.state = "waiting"; // then preparing, uploading, analysing or busy, at last done or failed
    this.element = template.content.cloneNode(true).firstElementChild;
    this.image = this.find("img");
    this.image.onload = () => (this.image.hidden = false);
    this.url = this.image.src = URL.createObjectURL(file);
    this.element.addEventListener("click", ({ target }) => {
      const action = target.closest("[data-action]")?.dataset.action;
      if (action) act(this, action);
    });
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  /** Enter `state`: uploading has a `share`, busy `seconds`, done a `reply` and `sent` bytes, failed a `problem`. */
  enter(state, facts = {}) {
    Object.assign(this, { state, share: null, seconds: 0 }, facts);
  }

  /** Show the state in the language and with the classes that are wanted now. */
  render(topK) {
    localise(this.element);
    this.element.dataset.state = this.state;
    this.element.setAttribute("aria-busy", String(!["done", "failed"].includes(this.state)));
    this.find(".file").textContent = this.file.name;
    this.find(".remove").setAttribute("aria-label", t("remove", { name: this.file.name }));
    this.find(".working").hidden = ["done", "failed"].includes(this.state);
    this.find(".failure").hidden = this.state !== "failed";
    this.find(".answer").hidden = this.state !== "done";
    if (this.state === "failed") {
      this.find(".failure h3").textContent = errorTitle(this.problem);
      this.find(".said").textContent = this.problem.message;
    } else if (this.state === "done") {
      this.#renderAnswer(topK);
    } else {
      const values = { share: percent(this.share ?? 0), seconds: this.seconds };
      this.find(".state").textContent = t(`state_${this.state}`, values);
      const bar = this.find("progress");
      bar.setAttribute("aria-label", this.find(".state").textContent);
      if (this.state === "uploading") bar.value = this.share;
      else bar.removeAttribute("value");
    }
  }

  /** What came of it in one sentence. */
  sentence() {
    const name = this.file.name;
    if (this.state === "failed") return t("said_failed", { name, problem: errorTitle(this.problem) });
    const { predictions, confident } = this.reply;
    const [first] = predictions;
    const said = verdict(predictions, confident) === "sure" ? "said_sure" : "said_unsure";
    return t(said, { name, label: names(first)[0].text, share: probability(first.probability) });
  }

  #renderAnswer(topK) {
    const { predictions, groups, confident, warnings, timing_ms: timing } = this.reply;
    const [first, second] = predictions;
    const [{ text: label }, other] = names(first);
    const judged = verdict(predictions, confident);

    const title = this.find(".answer h3");
    title.replaceChildren(judged === "sure" ? label : t("perhaps", { label }));
    if (other) title.append(" ", small(other));
    const group = this.find(".group");
    group.hidden = !groups;
    if (groups) {
      const [{ text }] = names(groups[0]);
      group.textContent = t("group", { label: text, share: probability(groups[0].probability) });
    }
    const notes = [];
    if (judged !== "sure") {
      notes.push(
        t(`verdict_${judged}`, {
          first: label,
          share: probability(first.probability),
          second: second && names(second)[0].text,
          share_second: second && probability(second.probability),
        }),
      );
    }
    if (warnings) notes.push(t("incomplete"));
    const note = this.find(".verdict");
    note.hidden = !notes.length;
    note.textContent = notes.join(" ");

    this.find(".bars").replaceChildren(...predictions.slice(0, topK).map(bar));

    const parts = this.find(".stack").children;
    const legend = this.find(".stages").children;
    STAGES.forEach((stage, index) => {
      parts[index]?.style.setProperty("flex-grow", timing[stage]);
      legend[index].textContent = t(`stage_${stage}`, { time: milliseconds(timing[stage]) });
    });
    const sizes = { size: bytes(this.sent), original: bytes(this.file.size) };
    this.find(".sent").textContent = t(this.sent < this.file.size ? "sent_smaller" : "sent", sizes);
  }

  /** Take it off the page, and stop what is under way for it. */
  remove() {
    this.aborter.abort();
    URL.revokeObjectURL(this.url);
    this.element.remove();
  }
}

/** A name in a language that is not the page's. */
function small({ text, tag }) {
  const element = document.createElement("small");
  element.lang = tag;
  element.textContent = text;
  return element;
}

function bar(prediction) {
  const [{ text: label }, other] = names(prediction);
  const row = document.createElement("li");
  const name = document.createElement("span");
  name.append(label);
  if (other) name.append(" ", small(other));
  const share = document.createElement("b");
  share.textContent = probability(prediction.probability);
  const length = document.createElement("i");
  length.setAttribute("aria-hidden", "true");
  length.style.setProperty("--share", prediction.probability);
  row.append(name, share, length);
  return row;
}
