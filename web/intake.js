// Every way an image comes in: chosen, photographed, dropped, pasted, or one of the samples.
import { t } from "./language.js";

const byId = (id) => document.getElementById(id);

/** Call `take` with each list of files that comes in, and `tell` with why something could not be taken. */
export function listen(take, tell) {
  for (const [button, input] of [["choose", "files"], ["photo", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", ({ target }) => {
      take([...target.files]);
      target.value = ""; // so that the same file can be chosen again
    });
  }

  const receive = (transfer) => {
    const folders = [...transfer.items].some((item) => item.webkitGetAsEntry?.()?.isDirectory);
    const files = [...transfer.files].filter((file) => !folders || file.type);
    if (folders) tell(t("no_folders"));
    else if (!files.length) tell(t("not_a_file"));
    take(files);
  };

  const veil = (shown) => byId("veil").classList.toggle("shown", shown);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    veil(true);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil(false); // it left the window, not only an element
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    veil(false);
    receive(event.dataTransfer);
  });
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input")) return; // text into a field
    receive(event.clipboardData);
  });

  for (const button of document.querySelectorAll("[data-sample]")) {
    button.addEventListener("click", async () => {
      // Its thumbnail is the image itself, so the browser has it already, if it keeps anything.
      const reply = await fetch(button.querySelector("img").src).catch(() => null);
      if (!reply?.ok) return tell(t(reply ? "reload" : "error_unreachable"));
      const blob = await reply.blob();
      take([new File([blob], `${button.dataset.sample}.jpg`, { type: blob.type })]);
    });
  }
}
