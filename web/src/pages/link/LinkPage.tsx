// The line between the two sites: who is paired, over which way it goes, what it carries and what it may carry.
import { Button, Skeleton } from "@mantine/core";
import { useState } from "react";
import { useStatus } from "../../api/queries";
import { useMe } from "../../api/session";
import { Ago } from "../../parts/Ago";
import { Card, Facts, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { Mark, type Tone } from "../../parts/State";
import { words } from "../../parts/words";
import { Bytes } from "./Bytes";
import { Invite } from "./Invite";
import { Limits } from "./Limits";
import { Invitations, Sites } from "./Sites";
import { type Overview, useLink } from "./questions";

export default function LinkPage() {
  const { data: link, error, refetch } = useLink();
  const { data: status } = useStatus();
  const may = useMe()?.role === "administrator";
  const [inviting, setInviting] = useState(false);
  const paired = link?.encrypted === true;
  return (
    <Page title="Link" about="The line from the primaries' site to this one: mail comes over it, and nothing goes back but answers."
      mark={status && <Mark tone={status.link.connected ? "good" : "bad"} icon={status.link.connected ? "✓" : "✕"}>{status.link.connected ? "connected" : "silent"}</Mark>}
      actions={may && paired && <Button onClick={() => setInviting(true)}>Invite a site</Button>}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {!link && !error && <Skeleton h={240} />}
      {link && (
        <div className="stack">
          {status?.link.second_gateway_at && (
            <p className="note wait">
              <ReasonAndRemedy reason="a second source gateway was turned away, since only one is listened to"
                remedy="stop one of them" /> That was <Ago time={status.link.second_gateway_at} />.
            </p>
          )}
          {paired ? <><Sites may={may} />{may && <Invitations />}</> : <Unpaired link={link} />}
          <Ways link={link} heardAt={status?.link.heard_at} />
          <Limits limits={link.limits} may={may} />
          <Bytes bytes={link.bytes} traffic={status?.traffic} />
          {link.authority && paired && <Keys keys={link.authority} />}
        </div>
      )}
      {inviting && <Invite onClose={() => setInviting(false)} />}
    </Page>
  );
}

/** In one process, or on one machine. */
function Unpaired({ link }: { link: Overview }) {
  return (
    <Card title="Paired sites">
      {link.authority
        ? <p>Both gateways are on this machine and speak in clear text to each other, so there is nobody to pair.</p>
        : <p>No recovery gateway has run here yet. Start <code>understudy recovery</code>; then a site can be invited.</p>}
    </Card>
  );
}

const WAY: Record<string, [Tone, string]> = { used: ["good", "✓"], standing_by: ["still", "○"], untried: ["still", "?"], down: ["bad", "✕"] };

function Ways({ link, heardAt }: { link: Overview; heardAt?: string | null }) {
  return (
    <Card title="Ways">
      {link.paths.length === 0 ? (
        <p className="quiet">The source gateway has not said yet how it reaches this site.</p>
      ) : (
        <div className="scroll" tabIndex={0} role="region" aria-label="Ways, the best first">
          <table className="plain">
            <thead><tr><th scope="col">Address</th><th scope="col">State</th><th scope="col">Since</th><th scope="col" className="right">Round trip</th></tr></thead>
            <tbody>
              {link.paths.map((way) => {
                const [tone, icon] = WAY[way.state] ?? ["still", "?"];
                return (
                  <tr key={way.url}>
                    <td>{way.url}{way.reason && <p className="quiet small"><ReasonAndRemedy reason={way.reason} /></p>}</td>
                    <td><Mark tone={tone} icon={icon}>{words(way.state)}</Mark></td>
                    <td className="nowrap"><Ago time={way.since} /></td>
                    <td className="right number nowrap">{way.round_trip_ms == null ? "–" : `${way.round_trip_ms.toFixed(way.round_trip_ms < 10 ? 1 : 0)} ms`}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
      <p className="quiet small">As the source gateway sees them, the best first; last heard of it <Ago time={heardAt} />.</p>
    </Card>
  );
}

function Keys({ keys }: { keys: NonNullable<Overview["authority"]> }) {
  const until = (time: string) => new Date(time).toLocaleDateString();
  return (
    <Card title="This site">
      <Facts facts={[
        ["Listens on", keys.listen],
        ["Fingerprint", <code key="of">{keys.fingerprint}</code>],
        ["Good until", until(keys.expires_at)],
        ["Own certificate", <>until {until(keys.served_expires_at)}; it renews itself</>],
      ]} />
      <p className="quiet small">The other site showed this fingerprint when it joined. What it belongs to lies in <code>link/</code> below <code>data_dir</code>: back it up, since without it every site has to be paired again.</p>
    </Card>
  );
}
