// Events as sentences, newest first.
import { Link } from "react-router";
import type { Event, MailboxState } from "../api/client";
import { At } from "./Ago";
import { mailboxPath, runPath, serverPath } from "./paths";
import { ReasonAndRemedy } from "./Say";
import { MailboxMark, RunMark } from "./State";
import { title, words } from "./words";

type Detail = Record<string, unknown>;

const text = (detail: Detail, name: string): string => (typeof detail[name] === "string" ? (detail[name] as string) : "");

export function EventList({ events, short = false, own = false }: { events: readonly Event[]; short?: boolean; own?: boolean }) {
  if (events.length === 0) return <p className="quiet">Nothing has happened yet.</p>;
  return (
    <ol className="timeline">
      {events.map((event) => (
        <li key={event.event_id}>
          <span className="quiet small"><At time={event.created_at} /></span>
          <div>
            {event.address && !own && (
              event.primary ? <Link to={mailboxPath({ address: event.address, primary: event.primary })}>{event.address}</Link> : event.address
            )}{" "}
            {own && !/^(run|server)/.test(event.kind) && "It "}
            <What event={event} short={short} />
          </div>
        </li>
      ))}
    </ol>
  );
}

/** The part after the name: what happened. Kinds unknown to this page are shown by their names and numbers. */
function What({ event, short }: { event: Event; short: boolean }) {
  const detail = (typeof event.detail === "object" && event.detail !== null ? event.detail : {}) as Detail;
  const by = text(detail, "by");
  const server = text(detail, "server");
  const state = text(detail, "state");
  const run = event.run_id ? <Link to={runPath(event.run_id)}>{words(text(detail, "kind")) || "run"}</Link> : null;
  switch (event.kind) {
    case "state": return <>is now <MailboxMark state={state as MailboxState} />{text(detail, "by") && ` by ${by}`}</>;
    case "trouble": {
      const trouble = detail["trouble"] as Detail | null;
      const where = text(detail, "side") ? ` on the ${text(detail, "side")}` : "";
      if (!trouble) return <>is rid of its trouble{where}</>;
      return <>has a trouble{where}: <ReasonAndRemedy reason={text(trouble, "reason")} remedy={short ? undefined : text(trouble, "remedy")} /></>;
    }
    case "protected": return <>is protected</>;
    case "unprotected": return <>is protected no longer{by && `, by ${by}`}</>;
    case "paused": return <>was paused{by && ` by ${by}`}</>;
    case "resumed": return <>was resumed{by && ` by ${by}`}</>;
    case "changed": return <>has another policy or group</>;
    case "server_added": return <>Server <Link to={serverPath(server)}>{server}</Link> was added</>;
    case "server_changed": return <>Server <Link to={serverPath(server)}>{server}</Link> was changed</>;
    case "server_removed": return <>Server {server} was removed</>;
    case "run": return <>Run {run} <RunMark state={state} /></>;
    case "run_step": return <>Run {event.run_id ? <Link to={runPath(event.run_id)}>step</Link> : "step"}: {words(text(detail, "name"))}{text(detail, "outcome") && `, ${words(text(detail, "outcome"))}`}</>;
    default: return <>{title(event.kind)}{!short && Object.keys(detail).length > 0 && <span className="quiet">: {summary(detail)}</span>}{event.run_id && <> (<Link to={runPath(event.run_id)}>run</Link>)</>}</>;
  }
}

function summary(detail: Detail): string {
  return Object.entries(detail)
    .filter(([, value]) => value !== null && value !== "")
    .map(([name, value]) => `${words(name)} ${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
    .join(", ");
}
