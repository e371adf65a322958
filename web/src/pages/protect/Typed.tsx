// Addresses typed or pasted.
import { Textarea } from "@mantine/core";
import { mailboxes } from "../../parts/words";
import { addressesIn } from "./addresses";

export function Typed({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const found = addressesIn(value);
  return (
    <>
      <Textarea label="Addresses" description="What the primary takes as log-ins; one a line, or separated by commas or spaces." placeholder={"ana@example.org\nbob@example.org"}
        autosize minRows={4} maxRows={14} value={value} onChange={(event) => onChange(event.currentTarget.value)} spellCheck={false} />
      {found.length > 0 && <p className="quiet small" role="status">{mailboxes(found.length)}</p>}
    </>
  );
}
