// Every protected mailbox: found by filters that stand in the address bar, chosen one by one or all that match, acted on together.
import { Button, Menu, NativeSelect, TextInput } from "@mantine/core";
import { useDebouncedCallback } from "@mantine/hooks";
import { useCallback, useState } from "react";
import { Link, useNavigate, useSearchParams } from "react-router";
import { useCan } from "../../api/abilities";
import type { MailboxState } from "../../api/client";
import { useServers, useStatus } from "../../api/queries";
import { ChooseGroup } from "../../parts/Groups";
import { Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Shell } from "../../parts/Shell";
import { MAILBOX_STATES } from "../../parts/State";
import { count, mailboxes, words } from "../../parts/words";
import { type Act, Bulk } from "./Bulk";
import { filterOf, inWords, withPart } from "./filter";
import { type Chosen, nobody, Table } from "./Table";
import { useMailboxes } from "./useMailboxes";

export default function Mailboxes() {
  const [search, setSearch] = useSearchParams();
  const filter = filterOf(search);
  const list = useMailboxes(filter);
  const { data: status } = useStatus();
  const [chosen, setChosen] = useState<Chosen>(nobody);
  const [act, setAct] = useState<Act | null>(null);
  const signature = JSON.stringify(filter);
  const [shownFor, setShownFor] = useState(signature);
  // What is chosen is chosen among what is shown.
  if (shownFor !== signature) {
    setShownFor(signature);
    setChosen(nobody);
  }
  const change = useCallback((name: Parameters<typeof withPart>[1], value: string | null) => {
    setSearch((now) => withPart(now, name, value), { replace: name === "q" });
  }, [setSearch]);

  const filtered = signature !== "{}";
  const total = status?.mailboxes.total;
  const known = filtered ? (filter.state && !filter.server && !filter.group && !filter.q ? status?.mailboxes.by_state[filter.state] : undefined) : total;
  const shown = list.more ? (known === undefined ? `more than ${count(list.rows.length)}` : count(known)) : count(list.rows.length);
  const chosenCount = chosen.all ? (list.more ? (known ?? null) : list.rows.length) : chosen.some.size;

  if (total === 0 && !filtered) return <NoneYet />;
  return (
    <Page title="Mailboxes" actions={<Button component={Link} to="/protect">Protect mailboxes</Button>}>
      <div className="stack">
        <Filters key={search.get("q") === null ? "empty" : "given"} search={search} change={change} />
        {chosen.all || chosen.some.size > 0 ? (
          <div className="chosen" role="region" aria-label="Chosen mailboxes">
            <strong>{chosen.all ? `${chosenCount === null ? "All that match" : mailboxes(chosenCount)}: ${inWords(filter)}` : `${mailboxes(chosen.some.size)} chosen`}</strong>
            {!chosen.all && chosen.some.size >= list.rows.length && list.more && (
              <Button size="compact-sm" variant="default" onClick={() => setChosen({ all: true, some: new Map() })}>Choose all that match</Button>
            )}
            <Actions onAct={setAct} />
            <Button size="compact-sm" variant="subtle" onClick={() => setChosen(nobody)}>Choose none</Button>
          </div>
        ) : (
          <p className="quiet small" role="status">
            {list.loading ? "Looking…" : filtered ? `${shown} of ${total === undefined ? "all" : count(total)} mailboxes match` : mailboxes(known ?? list.rows.length)}
          </p>
        )}
        <Problem error={list.error} retry={list.retry} />
        {!list.loading && !list.error && list.rows.length === 0 ? (
          <div className="card">
            <p>No mailbox is like that. <Button size="compact-sm" variant="default" onClick={() => setSearch(new URLSearchParams())}>Show all</Button></p>
          </div>
        ) : (
          <Table list={list} chosen={chosen} setChosen={setChosen} total={known} />
        )}
      </div>
      {act && <Bulk act={act} chosen={chosen} filter={filter} onClose={(done) => {
        setAct(null);
        if (done) setChosen(nobody);
      }} />}
    </Page>
  );
}

function Filters({ search, change }: { search: URLSearchParams; change: (name: "state" | "server" | "group" | "q", value: string | null) => void }) {
  const { data: servers } = useServers();
  const typed = useDebouncedCallback((value: string) => change("q", value), 250);
  return (
    <form className="row" role="search" style={{ alignItems: "flex-end" }} onSubmit={(event) => event.preventDefault()}>
      <TextInput data-search label="Address contains" type="search" defaultValue={search.get("q") ?? ""} autoComplete="off" spellCheck={false}
        onChange={(event) => typed(event.currentTarget.value)} style={{ flex: "1 1 14rem" }} />
      <NativeSelect label="State" value={search.get("state") ?? ""} onChange={(event) => change("state", event.currentTarget.value)}
        data={[{ value: "", label: "any" }, ...MAILBOX_STATES.map((state: MailboxState) => ({ value: state, label: words(state) }))]} />
      <NativeSelect label="Server" value={search.get("server") ?? ""} onChange={(event) => change("server", event.currentTarget.value)}
        data={[{ value: "", label: "any" }, ...(servers ?? []).map((server) => server.name)]} />
      <ChooseGroup className="wide" label="Group" none="any" value={search.get("group") ?? ""} onChange={(group) => change("group", group)} style={{ maxWidth: "12rem" }} />
    </form>
  );
}

function Actions({ onAct }: { onAct: (act: Act) => void }) {
  const can = useCan();
  return (
    <>
      <Button size="compact-sm" variant="default" onClick={() => onAct("verify")}>Verify</Button>
      <Button size="compact-sm" variant="default" onClick={() => onAct("pause")}>Pause</Button>
      <Button size="compact-sm" variant="default" onClick={() => onAct("resume")}>Resume</Button>
      {can("POST /api/v1/switchovers") && <Button size="compact-sm" variant="default" onClick={() => onAct("switchover")}>Switch over</Button>}
      {can("POST /api/v1/switchbacks") && <Button size="compact-sm" variant="default" onClick={() => onAct("switchback")}>Switch back</Button>}
      <Menu position="bottom-end" withinPortal>
        <Menu.Target><Button size="compact-sm" variant="default">More</Button></Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={() => onAct("deep")}>Verify every byte</Menu.Item>
          <Menu.Item onClick={() => onAct("barrier")}>Wait until all is on the other side</Menu.Item>
          <Menu.Item onClick={() => onAct("unprotect")}>Unprotect…</Menu.Item>
        </Menu.Dropdown>
      </Menu>
    </>
  );
}

function NoneYet() {
  const navigate = useNavigate();
  return (
    <Page title="Mailboxes">
      <div className="card stack">
        <p>No mailbox is protected yet. Choose some; each is copied once, then followed live.</p>
        <div><Button onClick={() => navigate("/protect")}>Protect mailboxes</Button></div>
        <Shell label="Protect mailboxes in a terminal">{`understudy mailbox protect ana@example.org --primary mail-a --standby dr-1
understudy mailbox protect --from-file users.csv --primary mail-a --standby dr-1`}</Shell>
      </div>
    </Page>
  );
}
