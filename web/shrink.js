// Large photographs are made smaller before they are sent: the service would only do the same.

/** JPEG quality of what is sent. */
const QUALITY = 0.9;
/** Never fewer pixels on the shorter side, however small the model: in a tiny JPEG its blocks are what is seen. */
const LEAST = 256;

/**
 * `file` as a JPEG whose shorter side is twice what the service scales to, by the model's `preprocessing`: what it then
 * throws away is not seen.  Upright by its EXIF orientation.  `file` itself where the service picks single pixels, which
 * this would have blurred; where shrinking is no gain; and where this browser can't read it (the service may, and has
 * the better message if it can't).
 */
export async function shrink(file, { resize, interpolation, antialias }) {
  if (!antialias || interpolation === "nearest" || interpolation === "box") return file;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  const scale = Math.max(LEAST, 2 * resize) / Math.min(bitmap.width, bitmap.height);
  if (scale >= 1) {
    bitmap.close();
    return file;
  }
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const context = canvas.getContext("2d");
  // JPEG has no transparency; the service composes over white, too.
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  // Null where the canvas is too large for the browser: a panorama a hundred times as wide as it is high.
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return blob && blob.size < file.size ? blob : file;
}
