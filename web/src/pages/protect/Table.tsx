// A CSV file: sent as it is, since the API alone knows what its columns mean.
import { Button, FileButton, Textarea } from "@mantine/core";
import { useState } from "react";
import { mailboxes } from "../../parts/words";
import { isTable, rowsIn } from "./addresses";

/** The API takes bodies up to 8 MiB. */
const LARGEST_BYTES = 7 * 1024 * 1024;

export function Table({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  const [wrong, setWrong] = useState("");
  async function load(file: File | null) {
    if (!file) return;
    if (file.size > LARGEST_BYTES) {
      setWrong("The file is larger than 7 MiB. Split it.");
      return;
    }
    setWrong("");
    onChange(await file.text());
  }
  const headless = value.trim() !== "" && !isTable(value);
  return (
    <>
      <p className="small">The first line names the columns. Only <code>address</code> is required; <code>primary</code>, <code>standby</code>, <code>standby_address</code>, <code>policy</code> and <code>group</code> are known.</p>
      <div className="row"><FileButton onChange={(file) => void load(file)} accept=".csv,text/csv,text/plain">{(props) => <Button {...props} variant="default">Choose a file</Button>}</FileButton></div>
      <Textarea label="Its contents" value={value} onChange={(event) => onChange(event.currentTarget.value)} autosize minRows={4} maxRows={12} spellCheck={false}
        placeholder={"address,group\nana@example.org,board\nbob@example.org,"} error={wrong || (headless ? "The first line has no column called address." : undefined)} />
      {value.trim() !== "" && !headless && <p className="quiet small" role="status">{mailboxes(rowsIn(value))}</p>}
    </>
  );
}
