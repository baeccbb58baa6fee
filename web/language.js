// Words in the chosen language.  The service chooses it when it sends the page: the cookie, else the browser's
// languages; so the first paint is right, and only a switch changes anything here.
const root = document.documentElement;
// How HTML names each language, by its code: the service writes a button for each, the default's first.
const buttons = [...document.querySelectorAll("[data-language]")];
const TAGS = Object.fromEntries(buttons.map(({ dataset, lang }) => [dataset.language, lang]));
const CODES = Object.keys(TAGS);
/** The language that everything has a name in. */
export const fallback = CODES[0];

const load = async (chosen) => (await import(`./strings.${chosen}.js`)).default;

export let language = CODES.find((code) => TAGS[code] === root.lang) ?? fallback;
let strings = await load(language);

/** The string `key`, its {names} filled from `values`. */
export const t = (key, values = {}) => strings[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** The headline of a ServiceError: its code's own where there is one, else the one that its kind of status shares. */
export const errorTitle = ({ code, status }) =>
  strings[`error_${code}`] ?? t(status >= 500 ? "error_internal" : "error_other");

/** Fill the elements under `node` that name a string: data-t is their text, data-t-NAME their attribute NAME. */
export function localise(node) {
  for (const element of node.querySelectorAll("*")) {
    for (const { name, value } of [...element.attributes]) {
      if (name === "data-t") element.textContent = t(value);
      else if (name.startsWith("data-t-")) element.setAttribute(name.slice(7), t(value));
    }
  }
}

let wanted = language;

/** Switch to `chosen`, and remember it for a year.  Rejected where its words can't be fetched. */
export async function choose(chosen) {
  wanted = chosen;
  const loaded = await load(chosen);
  if (wanted !== chosen) return; // another was chosen meanwhile
  strings = loaded;
  language = chosen;
  root.lang = TAGS[chosen];
  // A cookie, for the service is to send the page in this language; it holds nothing else.
  document.cookie = `lang=${chosen}; Max-Age=31536000; Path=/; SameSite=Strict`;
  localise(document);
}

export const number = (value, digits = 0) =>
  new Intl.NumberFormat(root.lang, { maximumFractionDigits: digits }).format(value);

/** A share in percent. */
export const percent = (share, digits = 0) =>
  new Intl.NumberFormat(root.lang, { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits }).format(share);

/** A probability in percent, never rounded to a certainty or an impossibility that it is not. */
export function probability(share) {
  if (share > 0.999 && share < 1) return `> ${percent(0.999, 1)}`;
  if (share < 0.001 && share > 0) return `< ${percent(0.001, 1)}`;
  return percent(share, 1);
}

export const milliseconds = (value) => `${number(value, value < 10 ? 1 : 0)} ms`;

export const bytes = (count) =>
  count < 1e6 ? `${number(Math.max(1, count / 1e3))} KB` : `${number(count / 1e6, 1)} MB`;

/** A prediction's names as { text, tag }: in the chosen language where there is one, then in the others. */
export function names(prediction) {
  return [language, ...CODES.filter((code) => code !== language)]
    .map((code) => ({ text: prediction[code === fallback ? "label" : `label_${code}`], tag: TAGS[code] }))
    .filter(({ text }) => text);
}
