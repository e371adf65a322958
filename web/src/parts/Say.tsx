// Sentences of the API: what stands between backticks is a command and shown as one.
import { whole } from "./words";

export function Say({ text }: { text: string }) {
  // The parts have no other name than their place, and the text is replaced as a whole.
  return <>{text.split("`").map((part, index) => (index % 2 === 1 ? <code key={index}>{part}</code> : part))}</>;
}

/** Why, and what to do: two sentences. */
export function ReasonAndRemedy({ reason, remedy }: { reason: string; remedy?: string }) {
  return (
    <>
      <Say text={whole(reason)} />
      {remedy ? <> <strong><Say text={whole(remedy)} /></strong></> : null}
    </>
  );
}
