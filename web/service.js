// All that is said to the service, in addresses relative to the page: it may live under a prefix.

const KEY = "resnet18-api-key";
const ANSWER_WITHIN_MS = 60_000;

/** Why there is no answer: the service's error code, or "unreachable", and its sentence. */
export class ServiceError extends Error {
  constructor(code, message = "", retryAfter = 0, status = 0) {
    super(message);
    this.code = code;
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch {} // a browser that keeps nothing for pages: the key lasts as long as this one

/** Whether `text` can be a key: what the service takes for one, and what a header can carry. */
export const isKey = (text) => /^[!-~]+$/.test(text);
export const hasKey = () => key !== null;
export function setKey(text) {
  key = text;
  try {
    sessionStorage.setItem(KEY, text);
  } catch {}
}

const authorization = () => (hasKey() ? { Authorization: `Bearer ${key}` } : {});

function failure(status, body, retryAfter) {
  const { code = "other", message = `HTTP ${status}` } = body?.error ?? {};
  return new ServiceError(status === 401 ? "unauthorized" : code, message, Number(retryAfter) || 0, status);
}

async function get(path) {
  let response;
  try {
    const options = { headers: authorization(), cache: "no-store", signal: AbortSignal.timeout(10_000) };
    response = await fetch(path, options);
  } catch {
    throw new ServiceError("unreachable");
  }
  if (!response.ok) {
    throw failure(response.status, await response.json().catch(() => null), response.headers.get("Retry-After"));
  }
  return response;
}

export const model = async () => (await get("model")).json();
export const labels = async () => (await get("labels")).json();
export const metrics = async () => (await get("metrics")).text();
export const isReady = () => get("readyz").then(() => true, () => false);

/** The reply to `image`; without `topK` the service chooses.  `progress` is told the share of it that is sent.  XMLHttpRequest, for fetch tells none. */
export function classify(image, { topK, signal, progress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", topK ? `classify?top_k=${topK}` : "classify");
    request.responseType = "json";
    request.timeout = ANSWER_WITHIN_MS;
    // What the file is, the service finds out by itself; a type that is no image's it would not even look at.
    const type = image.type.startsWith("image/") ? image.type : "application/octet-stream";
    for (const [name, value] of Object.entries({ ...authorization(), "Content-Type": type })) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = ({ loaded, total }) => progress(loaded / total);
    request.upload.onload = () => progress(1);
    request.onload = () => {
      if (request.status === 200) resolve(request.response);
      else reject(failure(request.status, request.response, request.getResponseHeader("Retry-After")));
    };
    request.onerror = () => reject(new ServiceError("unreachable"));
    // The service itself would have said long before that something took too long.
    request.ontimeout = () => reject(new ServiceError("unreachable"));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(image);
  });
}

/** The same request for a terminal.  The key is not written out: what is copied gets pasted anywhere. */
export function curl(name, topK) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const key = hasKey() ? ` -H "Authorization: Bearer $API_KEY"` : "";
  // In -F's value, quotation marks keep commas and semicolons in a name from being read as options.
  const file = `image=@"${name.replace(/["\\]/g, "\\$&")}"`;
  return `curl${key} -F ${quoted(file)} ${quoted(new URL(`classify?top_k=${topK}`, document.baseURI).href)}`;
}
