// Reads a stream of server-sent events by hand: `EventSource` cannot send a token.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

export interface Frame {
  id: string | null;
  event: string;
  data: string;
}

/** Cuts text into frames; what is not complete yet waits for the next piece. */
export class Frames {
  private rest = "";

  push(text: string): Frame[] {
    const parts = (this.rest + text).replaceAll("\r\n", "\n").split("\n\n");
    this.rest = parts.pop() ?? "";
    return parts.map(parse).filter((frame) => frame !== null);
  }
}

function parse(text: string): Frame | null {
  const frame: Frame = { id: null, event: "message", data: "" };
  const data: string[] = [];
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") frame.id = value;
    if (name === "event") frame.event = value;
    if (name === "data") data.push(value);
  }
  frame.data = data.join("\n");
  return data.length > 0 ? frame : null;
}
