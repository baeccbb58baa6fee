// When the page says "not sure".  A closed set of classes has no "none of these", so a softmax is all there is to go
// by.  How often this catches what the demo model does not know: docs/operations.md.

/** Below this the first class is not told as a fact. */
export const LOW = 0.7;
/** Nor when it leads the second by less than this. */
export const MARGIN = 0.5;

/** "sure", "low" or "close", of predictions that are sorted by probability; not `confident`: the service says so itself. */
export function verdict([first, second], confident = true) {
  if (!confident || first.probability < LOW) return "low";
  // The service rounds to six digits; a lead of exactly MARGIN must not depend on binary fractions.
  if (second && first.probability - second.probability < MARGIN - 1e-9) return "close";
  return "sure";
}
