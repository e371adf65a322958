// Asks before something that concerns many or is hard to undo: what will happen, to which mailboxes, and why.
import { Button, Group, Stack, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { Dialog } from "./Dialog";
import { Problem } from "./Problem";

/** The most names listed in a dialog. */
const LISTED = 100;

interface ConfirmProps {
  /** The question itself. */
  title: string;
  children: ReactNode;
  /** What it concerns. */
  names?: string[];
  act: string;
  danger?: boolean;
  /** What has to be typed first. */
  typed?: string;
  busy?: boolean;
  error?: unknown;
  onAct: (reason: string) => void;
  onClose: () => void;
}

export function Confirm({ title, children, names, act, danger, typed, busy, error, onAct, onClose }: ConfirmProps) {
  const [reason, setReason] = useState("");
  const [given, setGiven] = useState("");
  const ready = !typed || given.trim() === typed;
  return (
    <Dialog onClose={onClose} title={title}>
      <form onSubmit={(event) => {
        event.preventDefault();
        if (ready && !busy) onAct(reason.trim());
      }}>
        <Stack gap="sm">
          <div>{children}</div>
          {names && names.length > 0 && <Names names={names} />}
          <Textarea label="Reason" description="For the record; may be left empty." autosize minRows={2} maxRows={5}
            value={reason} onChange={(event) => setReason(event.currentTarget.value)} data-autofocus />
          {typed && (
            <TextInput label={`Type ${typed} to go on`} value={given} autoComplete="off"
              onChange={(event) => setGiven(event.currentTarget.value)} />
          )}
          <Problem error={error} />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>Cancel</Button>
            <Button type="submit" color={danger ? "red" : undefined} loading={busy} disabled={!ready}>{act}</Button>
          </Group>
        </Stack>
      </form>
    </Dialog>
  );
}

/** A list that may be long. */
export function Names({ names }: { names: string[] }) {
  return (
    <ul className="card small" style={{ maxHeight: "11rem", overflowY: "auto" }} tabIndex={0} aria-label="Mailboxes concerned">
      {names.slice(0, LISTED).map((name) => <li key={name} className="break">{name}</li>)}
      {names.length > LISTED && <li className="quiet">and {(names.length - LISTED).toLocaleString("en")} more</li>}
    </ul>
  );
}
