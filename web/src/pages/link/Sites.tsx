// Paired sites with their certificates, to revoke; tokens that are still open, to withdraw.
import { Button, Skeleton } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { api } from "../../api/client";
import { Ago, useNow } from "../../parts/Ago";
import { Confirm } from "../../parts/Confirm";
import { Card } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark } from "../../parts/State";
import { duration } from "../../parts/words";
import { type Invitation, type Peer, useInvitations, usePeers } from "./questions";

/** From when on a certificate that was not renewed is warned of, as the recovery gateway does. */
const WARNED_MS = 14 * 86_400_000;

export function Sites({ may }: { may: boolean }) {
  const { data: peers, error, refetch } = usePeers();
  const [ending, setEnding] = useState<Peer | null>(null);
  return (
    <Card title="Paired sites">
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {!peers && !error && <Skeleton h={80} />}
      {peers?.length === 0 && <p>None yet. Invite the primaries' site: it gets a token, and joins with <code>understudy link join</code>.</p>}
      {peers && peers.length > 0 && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Paired sites, in the order they came">
          <table className="plain">
            <thead><tr><th scope="col">Name</th><th scope="col">State</th><th scope="col">Certificate</th><th scope="col">Last connected</th><th scope="col" className="wide">Joined</th><th scope="col"><span className="hidden">Actions</span></th></tr></thead>
            <tbody>
              {peers.map((peer) => (
                <tr key={peer.name}>
                  <td>{peer.name}<p className="quiet small wide">understudy {peer.product_version}</p></td>
                  <td><SiteMark peer={peer} /></td>
                  <td><Certificate peer={peer} /></td>
                  <td><Ago time={peer.connected_at} />{peer.connected_from && <p className="quiet small">from {peer.connected_from}</p>}</td>
                  <td className="wide"><Ago time={peer.joined_at} /></td>
                  <td className="right">{may && !peer.revoked_at && <Button size="compact-sm" variant="default" aria-label={`Revoke ${peer.name}`} onClick={() => setEnding(peer)}>Revoke…</Button>}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {ending && (
        <End title={`Revoke ${ending.name}?`} act="Revoke" onClose={() => setEnding(null)}
          end={(headers) => api.DELETE("/api/v1/link/peers/{name}", { params: { path: { name: ending.name } }, headers })}>
          <p>Its connections are cut within seconds, and its certificate counts no more. Mail of its primaries is captured there and waits, until the site is invited and joins again.</p>
        </End>
      )}
    </Card>
  );
}

function SiteMark({ peer }: { peer: Peer }) {
  const now = useNow();
  if (peer.state === "revoked") return <><Mark tone="still" icon="✕">revoked</Mark><p className="quiet small"><Ago time={peer.revoked_at} />{peer.revoked_by && ` by ${peer.revoked_by}`}</p></>;
  if (peer.state === "expired") return <Mark tone="bad" icon="✕">expired</Mark>;
  if (Date.parse(peer.expires_at) - now < WARNED_MS && !renewsSoon(peer)) return <Mark tone="wait" icon="!">ends soon</Mark>;
  return <Mark tone="good" icon="✓">good</Mark>;
}

/** Certificates of some days, as a trial has them, are never far from their end. */
function renewsSoon(peer: Peer): boolean {
  return Date.parse(peer.expires_at) - Date.parse(peer.connected_at ?? peer.joined_at) > WARNED_MS;
}

function Certificate({ peer }: { peer: Peer }) {
  const now = useNow();
  const left = (Date.parse(peer.expires_at) - now) / 1000;
  return (
    <>
      <time dateTime={peer.expires_at}>until {new Date(peer.expires_at).toLocaleDateString()}</time>
      {peer.state === "good" && <p className="quiet small">{duration(left)} left; renews itself</p>}
      {peer.state === "expired" && <p className="quiet small">Invite the site again, and let it join.</p>}
    </>
  );
}

export function Invitations() {
  const { data, error } = useInvitations(true);
  const [ending, setEnding] = useState<Invitation | null>(null);
  const open = data?.filter((made) => made.state === "open") ?? [];
  if (!error && open.length === 0) return null;
  return (
    <Card title="Open invitations">
      <Problem error={error} />
      <ul className="lines">
        {open.map((made) => (
          <li key={made.id} className="row between">
            <span>{made.name || "Any site"} <span className="quiet small">by {made.created_by}, <Ago time={made.created_at} />; good until {new Date(made.expires_at).toLocaleTimeString()}</span></span>
            <Button size="compact-sm" variant="default" aria-label={`Withdraw the invitation of ${made.name || "any site"}`} onClick={() => setEnding(made)}>Withdraw…</Button>
          </li>
        ))}
      </ul>
      {ending && (
        <End title="Withdraw this invitation?" act="Withdraw" onClose={() => setEnding(null)}
          end={(headers) => api.DELETE("/api/v1/link/invitations/{id}", { params: { path: { id: ending.id } }, headers })}>
          <p>Its token is worthless from now on. Who has joined with it stays paired.</p>
        </End>
      )}
    </Card>
  );
}

interface EndProps {
  title: string;
  act: string;
  children: ReactNode;
  end: (headers: Record<string, string>) => Promise<unknown>;
  onClose: () => void;
}

function End({ title, act, children, end, onClose }: EndProps) {
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  return (
    <Confirm title={title} act={act} danger busy={busy} error={error} onClose={onClose} onAct={(reason) => {
      setBusy(true);
      // A header carries no other letters.
      end(reason ? { "Understudy-Reason": reason.replace(/[^\x20-\x7e]/g, "?") } : {})
        .then(() => client.invalidateQueries({ queryKey: ["link"] }))
        .then(onClose)
        .catch((problem: unknown) => {
          setBusy(false);
          setError(problem);
        });
    }}>
      {children}
    </Confirm>
  );
}
