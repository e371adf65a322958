// What protection costs: month by month, by mailbox over days of one's choice, and by which prices.
import { Button, Group, Skeleton, Stack, Textarea, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { Link } from "react-router";
import { api, body, Refusal, type Schema } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { Dialog } from "../../parts/Dialog";
import { Card, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark } from "../../parts/State";
import { download } from "./download";
import { Lines } from "./Lines";

export function MonthMark({ state }: { state: Schema["InvoiceState"] }) {
  if (state === "closed") return <Mark tone="good" icon="✓">closed</Mark>;
  if (state === "open") return <Mark tone="wait" icon="!">to be closed</Mark>;
  return <Mark tone="busy" icon="…">running</Mark>;
}

export default function Billing() {
  const { data: months, error, refetch } = useQuery({
    queryKey: ["invoices"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/invoices", { signal })).items,
  });
  const forbidden = error instanceof Refusal && error.status === 403;
  return (
    <Page title="Billing" about="Usage is counted when it happens: days protected, bytes kept and carried, switchovers. Days and months are those of UTC.">
      {error ? <Problem error={error} retry={forbidden ? undefined : () => void refetch()} /> : null}
      {!months && !error && <Skeleton h={160} />}
      {months && (
        <div className="stack">
          <Card title="Months">
            <div className="scroll" tabIndex={0} role="region" aria-label="Months, one a row">
              <table className="plain">
                <thead><tr><th scope="col">Month</th><th scope="col">State</th><th scope="col" className="right">Total</th><th scope="col" className="wide">Closed</th></tr></thead>
                <tbody>
                  {months.map((month) => (
                    <tr key={month.month}>
                      <td><Link to={`/billing/${month.month}`}>{month.month}</Link></td>
                      <td><MonthMark state={month.state} /></td>
                      <td className="right number">{month.total} {month.currency}</td>
                      <td className="wide">{month.closed_at ? <><Ago time={month.closed_at} /> by {month.closed_by}</> : "–"}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            {months.length === 0 && <p className="quiet">Nothing was protected yet.</p>}
          </Card>
          <Usage />
          <Prices />
        </div>
      )}
    </Page>
  );
}

const iso = (day: Date): string => day.toISOString().slice(0, 10);

function Usage() {
  const today = new Date();
  const [from, setFrom] = useState(iso(new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), 1))));
  const [to, setTo] = useState(iso(today));
  const [failure, setFailure] = useState<unknown>(null);
  const ready = /^\d{4}-\d\d-\d\d$/.test(from) && /^\d{4}-\d\d-\d\d$/.test(to);
  const { data: report, error } = useQuery({
    queryKey: ["billing", from, to],
    enabled: ready,
    queryFn: async ({ signal }) => {
      const { data } = await api.GET("/api/v1/reports/billing", { params: { query: { from, to } }, signal });
      return data as Schema["BillingReport"];
    },
  });
  const take = (format: "csv" | "json") => {
    setFailure(null);
    download(`/api/v1/reports/billing?from=${from}&to=${to}&format=${format}`, `understudy-billing-${from}-${to}.${format}`).catch(setFailure);
  };
  return (
    <Card title="Usage" actions={<Group gap="xs"><Button variant="default" disabled={!report} onClick={() => take("csv")}>Export CSV</Button><Button variant="default" disabled={!report} onClick={() => take("json")}>Export JSON</Button></Group>}>
      <Group gap="sm">
        <TextInput type="date" label="From" value={from} onChange={(event) => setFrom(event.currentTarget.value)} />
        <TextInput type="date" label="To, included" value={to} onChange={(event) => setTo(event.currentTarget.value)} />
      </Group>
      <Problem error={failure ?? error} />
      {report?.invoices.map((invoice) => <Lines key={invoice.month} invoice={invoice} />)}
      {report && <p><strong>{report.totals.map((total) => `${total.amount} ${total.currency}`).join(" and ")}</strong> in all.</p>}
    </Card>
  );
}

function Prices() {
  const [changing, setChanging] = useState(false);
  const { data: prices, error } = useQuery({
    queryKey: ["prices"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/prices", { signal })),
  });
  return (
    <Card title="Prices" actions={prices && <Button variant="default" onClick={() => setChanging(true)}>Set prices…</Button>}>
      <Problem error={error} />
      {prices && (prices.plans.length === 0 ? <p className="quiet">None are set yet: everything is free.</p> : <Plan plan={prices.plan} />)}
      {prices && changing && <SetPrices prices={prices} onClose={() => setChanging(false)} />}
    </Card>
  );
}

export function Plan({ plan }: { plan: Schema["Plan"] }) {
  const unit = plan.currency;
  const steps = (tiers: { end?: number | null; price: string }[], what: string) =>
    tiers.map(({ end, price }) => `${price} ${unit}${end ? ` up to ${end} ${what}` : tiers.length > 1 ? " beyond" : ""}`).join(", ");
  const mailboxes = (plan.mailboxes ?? []).map((tier) => ({ end: tier.up_to, price: tier.price }));
  const kept = (plan.kept?.tiers ?? []).map((tier) => ({ end: tier.up_to_gb, price: tier.price }));
  return (
    <dl className="facts">
      <dt>A mailbox a month</dt><dd>{mailboxes.length ? steps(mailboxes, "mailboxes") : "free"}{plan.pro_rata === false ? "" : ", by the day"}</dd>
      <dt>A GB kept for a month</dt><dd>{kept.length ? steps(kept, "GB") : "free"}{plan.kept?.included_gb ? `; ${plan.kept.included_gb} GB of each mailbox included` : ""}</dd>
      <dt>A GB carried</dt><dd>{plan.carried?.price ?? "0.00"} {unit}{plan.carried?.included_gb ? `; ${plan.carried.included_gb} GB of each mailbox included` : ""}</dd>
      <dt>A switchover</dt><dd>{plan.switchovers?.price ?? "0.00"} {unit}{plan.switchovers?.included ? `; ${plan.switchovers.included} of each mailbox included` : ""}</dd>
      <dt>A month at least</dt><dd>{plan.minimum ?? "0.00"} {unit}</dd>
    </dl>
  );
}

function SetPrices({ prices, onClose }: { prices: Schema["Prices"]; onClose: () => void }) {
  const client = useQueryClient();
  const [from, setFrom] = useState(prices.month);
  const [text, setText] = useState(() => JSON.stringify(prices.plan, null, 2));
  const [error, setError] = useState<unknown>(null);
  const [broken, setBroken] = useState<string | undefined>();

  async function set(event: FormEvent) {
    event.preventDefault();
    setError(null);
    setBroken(undefined);
    let plan: Schema["Plan"];
    try {
      plan = JSON.parse(text) as Schema["Plan"];
    } catch (problem) {
      setBroken(`This is not JSON: ${(problem as Error).message}`);
      return;
    }
    try {
      await api.PUT("/api/v1/prices", { body: { valid_from: from, plan } });
      await Promise.all(["prices", "invoices", "billing"].map((key) => client.invalidateQueries({ queryKey: [key] })));
      onClose();
    } catch (problem) {
      setError(problem);
    }
  }

  return (
    <Dialog onClose={onClose} title="Set prices" sticky>
      <form onSubmit={set}>
        <Stack gap="sm">
          <TextInput label="From the month" description="Neither it nor a later one may be closed." required value={from} onChange={(event) => setFrom(event.currentTarget.value)} />
          <Textarea label="Prices" description="As JSON. Amounts are texts such as &quot;2.50&quot;, so that no cent is lost." required autosize minRows={12} maxRows={24} value={text}
            onChange={(event) => setText(event.currentTarget.value)} error={broken} spellCheck={false} styles={{ input: { fontFamily: "var(--mantine-font-family-monospace)" } }} />
          <Problem error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit">Set them</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}
