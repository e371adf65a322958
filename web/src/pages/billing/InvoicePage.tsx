// One month as it is billed: every line, ready to be printed, closed once and corrected by lines of later ones.
import { Button, Group, Skeleton, Stack, TextInput } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useParams } from "react-router";
import { api, body, type Schema } from "../../api/client";
import { Confirm } from "../../parts/Confirm";
import { Dialog } from "../../parts/Dialog";
import { Card, Page } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { MonthMark, Plan } from "./Billing";
import { Lines } from "./Lines";

export default function InvoicePage() {
  const { month = "" } = useParams();
  const [asking, setAsking] = useState<"close" | "correct" | null>(null);
  const { data: invoice, error, refetch } = useQuery({
    queryKey: ["invoices", month],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/invoices/{month}", { params: { path: { month } }, signal })),
  });
  const differs = invoice?.state === "closed" && invoice.recomputed_total !== invoice.total;
  return (
    <Page title={`Invoice ${month}`} above={["/billing", "Billing"]} mark={invoice && <MonthMark state={invoice.state} />}
      actions={invoice && (
        <>
          <Button variant="default" onClick={() => window.print()}>Print</Button>
          {invoice.state === "open" && <Button onClick={() => setAsking("close")}>Close the month…</Button>}
          {invoice.state === "closed" && <Button variant="default" onClick={() => setAsking("correct")}>Correct…</Button>}
        </>
      )}>
      {error ? <Problem error={error} retry={() => void refetch()} /> : null}
      {!invoice && !error && <Skeleton h={240} />}
      {invoice && (
        <div className="stack">
          <p className="sentence">{invoice.total} {invoice.currency} for {invoice.from} to {invoice.to}, by {invoice.lines.length} lines.</p>
          {differs && <div className="note wait">The usage log now comes to {invoice.recomputed_total} {invoice.currency}: something was counted after the month was closed. Correct it where that is owed.</div>}
          <Card title="Lines"><Lines invoice={invoice} all /></Card>
          <Card title="Prices"><Plan plan={invoice.plan} /></Card>
          {invoice.closed_at && <p className="quiet small">Closed {new Date(invoice.closed_at).toLocaleString()} by {invoice.closed_by}.</p>}
        </div>
      )}
      {invoice && asking === "close" && <Close invoice={invoice} onClose={() => setAsking(null)} />}
      {invoice && asking === "correct" && <Correct invoice={invoice} onClose={() => setAsking(null)} />}
    </Page>
  );
}

function Close({ invoice, onClose }: { invoice: Schema["Invoice"]; onClose: () => void }) {
  const client = useQueryClient();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  return (
    <Confirm title={`Close ${invoice.month}?`} act="Close the month" busy={busy} error={error} onClose={onClose} onAct={() => {
      setBusy(true);
      api.POST("/api/v1/invoices/{month}/close", { params: { path: { month: invoice.month } } })
        .then(() => client.invalidateQueries({ queryKey: ["invoices"] }))
        .then(onClose)
        .catch((problem: unknown) => {
          setBusy(false);
          setError(problem);
        });
    }}>
      <p>It stays at {invoice.total} {invoice.currency} for good. What turns out wrong later is corrected by a line of a later month.</p>
    </Confirm>
  );
}

function Correct({ invoice, onClose }: { invoice: Schema["Invoice"]; onClose: () => void }) {
  const client = useQueryClient();
  const [amount, setAmount] = useState("");
  const [reason, setReason] = useState("");
  const [address, setAddress] = useState("");
  const [error, setError] = useState<unknown>(null);

  async function correct(event: FormEvent) {
    event.preventDefault();
    setError(null);
    try {
      await api.POST("/api/v1/invoices/{month}/corrections", { params: { path: { month: invoice.month } }, body: { amount, reason, address } });
      await client.invalidateQueries({ queryKey: ["invoices"] });
      onClose();
    } catch (problem) {
      setError(problem);
    }
  }

  return (
    <Dialog onClose={onClose} title={`Correct ${invoice.month}`}>
      <form onSubmit={correct}>
        <Stack gap="sm">
          <p>A line of its own in the first month that is open.</p>
          <TextInput label={`Amount in ${invoice.currency}`} description="Less than nothing is given back: -2.50" required value={amount} onChange={(event) => setAmount(event.currentTarget.value)} data-autofocus />
          <TextInput label="Why" required value={reason} onChange={(event) => setReason(event.currentTarget.value)} />
          <TextInput label="Mailbox" description="Where it concerns one." value={address} onChange={(event) => setAddress(event.currentTarget.value)} />
          <Problem error={error} />
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit">Correct it</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}
