// What is set, where, and where each is changed: by people here, or in the configuration of the installation.
import { Skeleton } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link } from "react-router";
import { api, body, type Schema } from "../../api/client";
import { type Me, useMe } from "../../api/session";
import { Card, Facts, Page } from "../../parts/Page";
import { policyPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { plural } from "../../parts/words";

type Setting = Schema["Setting"];

/** What each table of the configuration is about. */
const TABLES: Record<string, string> = {
  "": "This installation",
  database: "Database",
  admin: "Admin API and web",
  recovery: "Recovery gateway",
  source: "Source gateway",
  brake: "Mass-change brake, where a policy says nothing",
  verify: "Verification pace",
  content: "Message contents and how long they are kept",
  smtp: "Relays for notices",
  link: "Link between the sites",
  routes: "Routes for Dovecot doors",
  nginx: "Routes for nginx doors",
};

export default function Settings() {
  const me = useMe();
  return (
    <Page title="Settings" about="What is decided here, and what the configuration of the installation says.">
      <div className="stack">
        <div className="columns">
          <Notices />
          <Treatment me={me} />
        </div>
        {me?.is_provider && me.role === "administrator" && <Configuration />}
      </div>
    </Page>
  );
}

function Notices() {
  const { data, error } = useQuery({
    queryKey: ["notification-settings"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/notifications/settings", { signal })),
  });
  return (
    <Card title="Notices" actions={<Link to="/notifications">Change the notices</Link>}>
      <Problem error={error} />
      {!data && !error && <Skeleton h={120} />}
      {data && <Facts facts={[
        ["Administrators told", data.administrators.length > 0 ? data.administrators.join(", ") : "those of the configuration only"],
        ["Users are told of changes of side", data.notify_users ? "yes" : "no"],
        ["Language", data.language],
        ["Quiet hours", data.quiet_from && data.quiet_to ? `${data.quiet_from.slice(0, 5)} to ${data.quiet_to.slice(0, 5)}` : "none"],
        ["Collected in one mail", plural(data.group_minutes, "minute")],
        ["To one address", `${plural(data.per_hour, "mail")} an hour at most`],
      ]} />}
    </Card>
  );
}

function Treatment({ me }: { me: Me | null | undefined }) {
  const { data, error } = useQuery({
    queryKey: ["policies", "default"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/policies/{name}", { params: { path: { name: "default" } }, signal })),
  });
  const { switchover, switchback, threshold_seconds: threshold, quorum } = (data?.document ?? {}) as Record<string, unknown>;
  return (
    <Card title="How mailboxes are treated" actions={<Link to={policyPath("default")}>Change the policy default</Link>}>
      <Problem error={error} />
      {!data && !error && <Skeleton h={120} />}
      {data && <Facts facts={[
        ["Switchover by itself", String(switchover ?? "off")],
        ["Switchback by itself", String(switchback ?? "off")],
        ["Down for", plural(Number(threshold ?? 0), "second")],
        ["Observers that must agree", String(quorum ?? "")],
        ["Other policies", <Link key="policies" to="/policies">all policies</Link>],
        ["Prices", me?.role === "administrator" || me?.role === "billing" ? <Link key="billing" to="/billing">billing</Link> : ""],
        ["Limits of the link", me?.is_provider ? <Link key="link" to="/link">the link</Link> : ""],
      ]} />}
    </Card>
  );
}

function Configuration() {
  const { data, error } = useQuery({
    queryKey: ["settings"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/settings", { signal })).items,
    staleTime: 60_000,
  });
  const tables = new Map<string, Setting[]>();
  for (const setting of data ?? []) {
    const table = setting.key.includes(".") ? setting.key.replace(/\.[^.]*$/, "") : "";
    tables.set(table, [...(tables.get(table) ?? []), setting]);
  }
  return (
    <Card title="From the configuration">
      <p className="quiet small">Changed in the configuration file or the environment of the process, where each value says it comes from; it takes effect when the process is started again. Check it first: <code>understudy config check</code>. Secrets stand in files of their own and are not shown.</p>
      <Problem error={error} />
      {!data && !error && <Skeleton h={200} />}
      {data?.length === 0 && <p className="quiet">This process does not say its configuration.</p>}
      {data && data.length > 0 && (
        <div className="scroll" tabIndex={0} role="region" aria-label="Configuration">
          <table className="plain">
            <thead><tr><th scope="col">Key</th><th scope="col">Value</th><th scope="col">Comes from</th></tr></thead>
            {[...tables].map(([table, settings]) => (
              <tbody key={table}>
                <tr><th scope="colgroup" colSpan={3} style={{ paddingTop: "0.9rem" }}>{TABLES[table.replace(/\.\d+.*$/, "")] ?? table}</th></tr>
                {settings.map((setting) => (
                  <tr key={setting.key}><td><code>{setting.key}</code></td><td className="break">{shown(setting.value)}</td><td className="quiet break">{origin(setting)}</td></tr>
                ))}
              </tbody>
            ))}
          </table>
        </div>
      )}
    </Card>
  );
}

function shown(value: unknown): ReactNode {
  if (Array.isArray(value)) return value.length > 0 ? value.join(", ") : "none";
  return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
}

function origin({ origin: from, place }: Setting): string {
  if (from === "file") return `the file, ${place ?? ""}`;
  return from === "environment" ? `the environment, ${place ?? ""}` : "built in";
}
