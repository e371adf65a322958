// What went wrong: what, why, what to do.
import { Button } from "@mantine/core";
import { Refusal } from "../api/client";
import { ReasonAndRemedy, Say } from "./Say";
import { whole } from "./words";

/** The most items of a list of errors that are shown. */
const SHOWN = 50;

export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  if (!error) return null;
  const problem = error instanceof Refusal ? error.problem : null;
  const message = error instanceof Error ? error.message : String(error);
  const items = problem?.errors ?? [];
  return (
    <div className="note bad" role="alert">
      <p>
        {problem
          ? <ReasonAndRemedy reason={problem.detail} remedy={problem.remedy} />
          : <ReasonAndRemedy reason={message} remedy="reload the page; if it stays, report it with what you did" />}
      </p>
      {items.length > 0 && (
        <ul className="lines small">
          {items.slice(0, SHOWN).map((item, index) => (
            <li key={index}>
              {item.line ? `Line ${item.line}: ` : item.pointer ? <><code>{item.pointer}</code> </> : null}
              <Say text={whole(item.detail)} />
              {item.nearest ? <> Did you mean <code>{item.nearest}</code>?</> : null}
            </li>
          ))}
          {items.length > SHOWN && <li>and {items.length - SHOWN} more</li>}
        </ul>
      )}
      {retry && <Button mt="xs" size="xs" variant="default" onClick={retry}>Try again</Button>}
    </div>
  );
}
