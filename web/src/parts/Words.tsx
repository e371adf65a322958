// What a mail would say: its subject, its text, and its HTML.
import { SegmentedControl } from "@mantine/core";
import { useState } from "react";
import type { Schema } from "../api/client";

export function WordsShown({ words, label = "Preview" }: { words: Schema["Preview"]; label?: string }) {
  const [way, setWay] = useState("text");
  return (
    <section className="note stack tight" aria-label={label}>
      <div className="row between">
        <p><strong>{words.subject}</strong></p>
        <SegmentedControl size="xs" aria-label="As" value={way} onChange={setWay} data={[{ value: "text", label: "Text" }, { value: "html", label: "HTML" }]} />
      </div>
      {way === "text"
        ? <pre className="break" style={{ whiteSpace: "pre-wrap" }}>{words.text}</pre>
        // As it is written: a mail from elsewhere is not drawn among our own words.
        : <pre className="break" style={{ whiteSpace: "pre-wrap" }}>{words.html}</pre>}
    </section>
  );
}
