/** Booleans as LXD takes them in settings. */

const trueWords = new Set(["true", "1", "yes", "on"]);
const falseWords = new Set(["false", "0", "no", "off"]);

/** @returns Whether a config value says yes; absent and empty say no. */
export function isTrue(value: string | undefined): boolean {
  return value !== undefined && trueWords.has(value.toLowerCase());
}

/** @returns Whether a config value says no; absent and empty do not. */
export function isFalse(value: string | undefined): boolean {
  return value !== undefined && falseWords.has(value.toLowerCase());
}
