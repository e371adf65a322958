// One mailbox: how far its changes are, what stands in the way, what was done with it.
import { Button, Menu, Skeleton, Tabs } from "@mantine/core";
import { useState } from "react";
import { Link, useNavigate, useParams, useSearchParams } from "react-router";
import { useCan } from "../../api/abilities";
import { api, body, type Mailbox, type Run } from "../../api/client";
import { useMailbox } from "../../api/queries";
import { useMe } from "../../api/session";
import { Ago } from "../../parts/Ago";
import { Card, Facts, Page } from "../../parts/Page";
import { runPath, serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { MailboxMark } from "../../parts/State";
import { bytes, count } from "../../parts/words";
import { Change } from "./Change";
import { Contact } from "./Contact";
import { Folders } from "./Folders";
import { Held } from "./Held";
import { History } from "./History";
import { Journal } from "./Journal";
import { Pipeline } from "./Pipeline";
import { SetAside } from "./SetAside";
import { Unprotect } from "./Unprotect";
import { Verification } from "./Verification";

export default function MailboxPage() {
  const { address = "" } = useParams();
  const [search] = useSearchParams();
  const primary = search.get("primary") ?? undefined;
  const { data: mailbox, error, refetch } = useMailbox(address, primary);
  if (useMe()?.role === "user") {
    return (
      <Page title={address} mark={mailbox && <MailboxMark state={mailbox.state} />} about={mailbox && `You work on the ${mailbox.active_side} server.`}>
        {error ? <Problem error={error} retry={() => void refetch()} /> : null}
        {mailbox ? <Now mailbox={mailbox} /> : error ? null : <Skeleton h={300} />}
      </Page>
    );
  }
  return (
    <Page title={address} above={["/mailboxes", "Mailboxes"]} mark={mailbox && <MailboxMark state={mailbox.state} />}
      about={mailbox && <><Link to={serverPath(mailbox.primary)}>{mailbox.primary}</Link> → <Link to={serverPath(mailbox.standby)}>{mailbox.standby}</Link>; the user works on the {mailbox.active_side}</>}
      actions={mailbox && <Actions mailbox={mailbox} />}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {mailbox ? <Known mailbox={mailbox} /> : error ? null : <Skeleton h={300} />}
    </Page>
  );
}

function Known({ mailbox }: { mailbox: Mailbox }) {
  const [search, setSearch] = useSearchParams();
  const tab = search.get("tab") ?? "now";
  return (
    <div className="stack">
      {mailbox.state === "held"
        ? <Held mailbox={mailbox} />
        : mailbox.detail && (
          <div className={`note ${mailbox.state === "faulted" ? "bad" : "wait"}`} role="status">
            <p><ReasonAndRemedy reason={mailbox.detail.reason} remedy={mailbox.detail.remedy} /></p>
          </div>
        )}
      <Tabs value={tab} keepMounted={false} onChange={(next) => setSearch((now) => {
        const changed = new URLSearchParams(now);
        changed.set("tab", next ?? "now");
        return changed;
      }, { replace: true })}>
        <Tabs.List mb="md">
          <Tabs.Tab value="now">Now</Tabs.Tab>
          <Tabs.Tab value="folders">Folders</Tabs.Tab>
          <Tabs.Tab value="journal">Transactions</Tabs.Tab>
          <Tabs.Tab value="history">History</Tabs.Tab>
          <Tabs.Tab value="verify">Verification</Tabs.Tab>
          <Tabs.Tab value="problems">Set aside{mailbox.set_aside > 0 && ` (${count(mailbox.set_aside)})`}</Tabs.Tab>
        </Tabs.List>
        <Tabs.Panel value="now"><Now mailbox={mailbox} /></Tabs.Panel>
        <Tabs.Panel value="folders"><Folders mailbox={mailbox} /></Tabs.Panel>
        <Tabs.Panel value="journal"><Journal mailbox={mailbox} /></Tabs.Panel>
        <Tabs.Panel value="history"><History mailbox={mailbox} /></Tabs.Panel>
        <Tabs.Panel value="verify"><Verification mailbox={mailbox} /></Tabs.Panel>
        <Tabs.Panel value="problems"><SetAside mailbox={mailbox} /></Tabs.Panel>
      </Tabs>
    </div>
  );
}

function Now({ mailbox }: { mailbox: Mailbox }) {
  const { progress } = mailbox;
  const sized = progress.bytes_total > 0;
  return (
    <div className="stack">
      <Pipeline mailbox={mailbox} />
      <div className="columns">
        <Card title="Copied">
          <Facts facts={[
            ["Messages", progress.messages_total > 0 ? `${count(progress.messages_done)} of ${count(progress.messages_total)}` : mailbox.state === "seeding" ? "counting…" : "0"],
            ["Size", sized ? `${bytes(progress.bytes_done)} of ${bytes(progress.bytes_total)}` : null],
            ["Set aside", mailbox.set_aside > 0 ? <Link key="aside" to="?tab=problems">{count(mailbox.set_aside)} not on the standby as they are</Link> : "none"],
            ["Last whole look", <Ago key="swept" time={mailbox.swept_at} />],
            ["Last verified", <Ago key="verified" time={mailbox.last_verified_at} />],
          ]} />
        </Card>
        <Card title="How it is mirrored">
          <Facts facts={[
            ["Log-in on the standby", mailbox.standby_address],
            ["Changes are noticed by", mailbox.capability || "not known yet"],
            ["UIDs on the standby", mailbox.uid_continuity ? "the same as on the primary" : "its own"],
            ["Group", mailbox.group],
            ["Policy", mailbox.policy],
            ["Changes of side", count(mailbox.epoch - 1)],
            ["Protected", <Ago key="protected" time={mailbox.protected_at} />],
          ]} />
        </Card>
      </div>
    </div>
  );
}

function Actions({ mailbox }: { mailbox: Mailbox }) {
  const can = useCan();
  const navigate = useNavigate();
  const { refetch } = useMailbox(mailbox.address, mailbox.primary);
  const [busy, setBusy] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [asking, setAsking] = useState<"unprotect" | "change" | "contact" | null>(null);
  const params = { path: { address: mailbox.address }, query: { primary: mailbox.primary } };
  const which = `address=${encodeURIComponent(mailbox.address)}&primary=${encodeURIComponent(mailbox.primary)}`;

  async function act(name: string, question: () => Promise<{ data?: Run }>, follow: boolean) {
    setBusy(name);
    setError(null);
    try {
      const run = body(await question());
      if (follow) navigate(runPath(run.run_id));
      else await refetch();
    } catch (problem) {
      setError(problem);
    }
    setBusy("");
  }

  const stopped = mailbox.state === "paused" || mailbox.state === "faulted";
  return (
    <>
      {mailbox.active_side === "primary"
        ? can("POST /api/v1/switchovers") && <Button component={Link} to={`/switchover?${which}`} variant="default">Switch over…</Button>
        : can("POST /api/v1/switchbacks") && <Button component={Link} to={`/switchback?${which}`}>Switch back…</Button>}
      <Button variant="default" loading={busy === "verify"} onClick={() => void act("verify", () => api.POST("/api/v1/mailboxes/{address}/verify", { params, body: {} }), true)}>Verify</Button>
      {stopped
        ? <Button loading={busy === "resume"} onClick={() => void act("resume", () => api.POST("/api/v1/mailboxes/{address}/resume", { params, body: {} }), false)}>Resume</Button>
        : <Button variant="default" loading={busy === "pause"} disabled={mailbox.state === "held"} onClick={() => void act("pause", () => api.POST("/api/v1/mailboxes/{address}/pause", { params, body: {} }), false)}>Pause</Button>}
      <Menu position="bottom-end">
        <Menu.Target><Button variant="default">More</Button></Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={() => void act("deep", () => api.POST("/api/v1/mailboxes/{address}/verify", { params, body: { deep: true } }), true)}>Verify every byte</Menu.Item>
          <Menu.Item onClick={() => void act("barrier", () => api.POST("/api/v1/mailboxes/{address}/barrier", { params, body: {} }), true)}>Wait until all is on the other side</Menu.Item>
          <Menu.Item onClick={() => setAsking("change")}>Change group or policy…</Menu.Item>
          <Menu.Item onClick={() => setAsking("contact")}>Where the user is told…</Menu.Item>
          <Menu.Divider />
          <Menu.Item onClick={() => setAsking("unprotect")}>Unprotect…</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {error ? <div style={{ flexBasis: "100%" }}><Problem error={error} /></div> : null}
      {asking === "unprotect" && <Unprotect mailbox={mailbox} onClose={() => setAsking(null)} />}
      {asking === "contact" && <Contact mailbox={mailbox} onClose={() => setAsking(null)} />}
      {asking === "change" && <Change mailbox={mailbox} onClose={() => setAsking(null)} />}
    </>
  );
}
