/** Regular expressions with bounded time: all states are followed at once, character by character, so that the time is at most pattern × text for any
 * pattern (as with Go's, which LXD's filters are written for; JavaScript's own backtrack, and can run for ever). Supports literals, `.`, classes,
 * groups, `|`, `*`, `+`, `?`, `^`, `$` and escapes; the whole text must match, ignoring case. */

const patternMax = 1024;

interface State {
  /** Absent for a fork, which consumes no character. */
  readonly takes?: (character: string) => boolean;
  readonly next: State[];
}

/** @returns A test for a whole text. @throws {Error} With the reason why the pattern is invalid. */
export function compilePattern(pattern: string): (text: string) => boolean {
  if (pattern.length > patternMax) throw new Error(`the pattern has more than ${patternMax} characters`);
  const end: State = { next: [] };
  const start = new Parser(pattern.toLowerCase()).parse(end);
  return (text) => {
    let states = new Set<State>();
    enter(start, states);
    for (const character of text.toLowerCase()) {
      const after = new Set<State>();
      for (const { takes, next } of states) if (takes?.(character)) { for (const one of next) enter(one, after); }
      states = after;
    }
    return states.has(end);
  };
}

function enter(state: State, states: Set<State>): void {
  const waiting = [state];
  for (let one = waiting.pop(); one; one = waiting.pop()) {
    if (states.has(one)) continue;
    states.add(one);
    if (!one.takes) waiting.push(...one.next);
  }
}

/** A part of a pattern: returns its first state, given the state that follows it. */
type Part = (next: State) => State;

class Parser {
  readonly #characters: readonly string[];
  #position = 0;
  #depth = 0;

  constructor(pattern: string) {
    this.#characters = [...pattern];
  }

  parse(end: State): State {
    const part = this.#alternatives();
    if (this.#peek() !== undefined) throw new Error(`"${this.#peek()}" is not expected there`);
    return part(end);
  }

  #alternatives(): Part {
    const parts = [this.#sequence()];
    while (this.#accept("|")) parts.push(this.#sequence());
    return (next) => parts.length === 1 ? parts[0]!(next) : { next: parts.map((part) => part(next)) };
  }

  #sequence(): Part {
    const parts: Part[] = [];
    for (let character = this.#peek(); character !== undefined && !"|)".includes(character); character = this.#peek()) {
      parts.push(this.#repeated());
    }
    return (next) => parts.reduceRight((after, part) => part(after), next);
  }

  #repeated(): Part {
    let part = this.#one();
    for (;;) {
      const inner = part;
      if (this.#accept("*")) {
        part = (next) => {
          const loop: State = { next: [next] };
          loop.next.push(inner(loop));
          return loop;
        };
      } else if (this.#accept("+")) {
        part = (next) => {
          const loop: State = { next: [next] };
          const first = inner(loop);
          loop.next.push(first);
          return first;
        };
      } else if (this.#accept("?")) part = (next) => ({ next: [next, inner(next)] });
      else return part;
    }
  }

  #one(): Part {
    const character = this.#take();
    switch (character) {
      case "(": {
        if (++this.#depth > 50) throw new Error("groups are nested too deep");
        if (this.#accept("?") && !this.#accept(":")) throw new Error("only plain groups are allowed");
        const part = this.#alternatives();
        if (!this.#accept(")")) throw new Error('")" is missing');
        this.#depth--;
        return part;
      }
      case "[":
        return taking(this.#class());
      case ".":
        return taking(() => true);
      // Anchors have no effect: the whole text must match anyway.
      case "^":
      case "$":
        return (next) => next;
      case "\\":
        return taking(this.#escape());
      case "*":
      case "+":
      case "?":
        throw new Error(`"${character}" has nothing to repeat`);
      default:
        return taking((one) => one === character);
    }
  }

  #escape(): (character: string) => boolean {
    const character = this.#take();
    if (character === "d") return (one) => one >= "0" && one <= "9";
    if (character === "w") return (one) => /\w/.test(one);
    if (character === "s") return (one) => /\s/.test(one);
    if (/[a-z0-9]/.test(character)) throw new Error(`"\\${character}" is not known`);
    return (one) => one === character;
  }

  #class(): (character: string) => boolean {
    const isNegated = this.#accept("^");
    const tests: ((character: string) => boolean)[] = [];
    while (tests.length === 0 || this.#peek() !== "]") {
      const from = this.#take();
      if (from === "\\") tests.push(this.#escape());
      else if (this.#peek() === "-" && this.#characters[this.#position + 1] !== "]") {
        this.#take();
        const to = this.#take();
        tests.push((one) => one >= from && one <= to);
      } else tests.push((one) => one === from);
    }
    this.#take();
    return (one) => tests.some((test) => test(one)) !== isNegated;
  }

  #peek(): string | undefined {
    return this.#characters[this.#position];
  }

  #accept(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#position++;
    return true;
  }

  #take(): string {
    const character = this.#characters[this.#position++];
    if (character === undefined) throw new Error("it ends too early");
    return character;
  }
}

function taking(takes: (character: string) => boolean): Part {
  return (next) => ({ takes, next: [next] });
}
