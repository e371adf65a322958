// Puts mailboxes under protection: between which servers, whose, and what will happen.
import { Button, NativeSelect, SegmentedControl, Skeleton } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { api, body, type Schema, type Server } from "../../api/client";
import { useServers } from "../../api/queries";
import { NameGroup } from "../../parts/Groups";
import { Card, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Names } from "../../parts/Confirm";
import { mailboxes } from "../../parts/words";
import { addressesIn, rowsIn } from "./addresses";
import { Discovered } from "./Discovered";
import { Done } from "./Done";
import { Estimate } from "./Estimate";
import { Table } from "./Table";
import { Typed } from "./Typed";

type Way = "typed" | "csv" | "discovered";
type Protected = Schema["Protected"];

export default function Protect() {
  const { data: servers, error } = useServers();
  const primaries = servers?.filter((server) => server.role === "primary") ?? [];
  const standbys = servers?.filter((server) => server.role === "standby") ?? [];
  return (
    <Page title="Protect mailboxes" about="Each mailbox is copied once to the standby, then followed live. Nothing changes for its user, and nothing is written to the primary.">
      <Problem error={error} />
      {!servers && !error && <Skeleton h={300} />}
      {servers && (primaries.length === 0 || standbys.length === 0) && (
        <div className="card stack tight">
          <p>Two servers are needed first: a primary, where the users work, and a standby, where the mirror is to be.</p>
          <div className="row">
            {primaries.length === 0 && <Button component={Link} to="/servers/new?role=primary">Add the primary</Button>}
            {standbys.length === 0 && <Button component={Link} to="/servers/new?role=standby">Add the standby</Button>}
          </div>
        </div>
      )}
      {primaries.length > 0 && standbys.length > 0 && <Wizard primaries={primaries} standbys={standbys} />}
    </Page>
  );
}

function Wizard({ primaries, standbys }: { primaries: Server[]; standbys: Server[] }) {
  const [search] = useSearchParams();
  const client = useQueryClient();
  const [primary, setPrimary] = useState(search.get("primary") ?? primaries[0]?.name ?? "");
  const [standby, setStandby] = useState(standbys[0]?.name ?? "");
  const [group, setGroup] = useState("");
  const [way, setWay] = useState<Way>(search.get("discovered") ? "discovered" : "typed");
  const [typed, setTyped] = useState("");
  const [table, setTable] = useState("");
  const [picked, setPicked] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [done, setDone] = useState<Protected | null>(null);

  const addresses = way === "typed" ? addressesIn(typed) : way === "discovered" ? picked : [];
  const total = way === "csv" ? rowsIn(table) : addresses.length;

  const about = { primary, standby, group: group.trim() || undefined, ...(way === "csv" ? { csv: table } : { addresses }) };

  async function protect(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const made = body(await api.POST("/api/v1/mailboxes", {
        body: { ...about, skip_invalid: true },
      })) as Protected;
      setDone(made);
      void client.invalidateQueries({ queryKey: ["status"] });
      void client.invalidateQueries({ queryKey: ["mailboxes"] });
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  }

  if (done) return <Done done={done} again={() => { setDone(null); setTyped(""); setTable(""); setPicked([]); }} />;
  return (
    <form className="stack" style={{ maxWidth: "52rem" }} onSubmit={protect}>
      <Card title="1. Between which servers">
        <div className="row" style={{ alignItems: "flex-end" }}>
          <NativeSelect label="Primary" value={primary} onChange={(event) => setPrimary(event.currentTarget.value)} data={primaries.map((server) => server.name)} />
          <NativeSelect label="Standby" value={standby} onChange={(event) => setStandby(event.currentTarget.value)} data={standbys.map((server) => server.name)} />
          <NameGroup label="Group (may be left out)" value={group} onChange={setGroup} />
        </div>
        <Doubts servers={[...primaries, ...standbys].filter((server) => server.name === primary || server.name === standby)} />
      </Card>
      <Card title="2. Whose mailboxes">
        <SegmentedControl value={way} onChange={(value) => setWay(value as Way)} aria-label="How to name them" data={[
          { value: "typed", label: "Type or paste" }, { value: "csv", label: "CSV file" }, { value: "discovered", label: "Ask the server" },
        ]} />
        {way === "typed" && <Typed value={typed} onChange={setTyped} />}
        {way === "csv" && <Table value={table} onChange={setTable} />}
        {way === "discovered" && <Discovered primary={primary} run={search.get("discovered")} picked={picked} onPick={setPicked} />}
      </Card>
      <Card title="3. What will happen">
        {total === 0 ? <p className="quiet">Name at least one mailbox above.</p> : (
          <>
            <p><strong>{mailboxes(total)}</strong> of <strong>{primary}</strong> {total === 1 ? "is" : "are"} mirrored to <strong>{standby}</strong> from now on. Those protected already stay as they are; those that cannot be protected are listed and left out.</p>
            {way !== "csv" && <Names names={addresses} />}
            <Estimate key={JSON.stringify(about)} about={about} />
          </>
        )}
        <Problem error={error} />
        <div><Button type="submit" loading={busy} disabled={total === 0}>{total === 0 ? "Protect" : `Protect ${mailboxes(total)}`}</Button></div>
      </Card>
    </form>
  );
}

function Doubts({ servers }: { servers: Server[] }) {
  const troubled = servers.filter((server) => server.trouble || server.last_check?.findings.some((finding) => finding.level === "failed"));
  const unchecked = servers.filter((server) => !server.last_checked_at && !server.trouble && server.mailboxes === 0);
  if (troubled.length === 0 && unchecked.length === 0) return null;
  return (
    <div className={`note ${troubled.length > 0 ? "bad" : "wait"} small`}>
      {troubled.map((server) => <p key={server.name}><Link to={`/servers/${encodeURIComponent(server.name)}`}>{server.name}</Link> has a trouble; look at it first.</p>)}
      {unchecked.map((server) => <p key={server.name}><Link to={`/servers/${encodeURIComponent(server.name)}`}>{server.name}</Link> was never checked; a check says in seconds whether mirroring can work.</p>)}
    </div>
  );
}
