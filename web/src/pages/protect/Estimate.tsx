// How much there is to copy, how long that takes and what it costs: from looking at some of the mailboxes, before anything is done.
import { Button } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, body, type Run } from "../../api/client";
import { ended, useRun } from "../../api/queries";
import { Facts } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { ReasonAndRemedy } from "../../parts/Say";
import { bytes, count, duration, mailboxes } from "../../parts/words";
import { useMe } from "../../api/session";

/** As `gateway-recovery` makes it. */
interface Measured {
  mailboxes: number;
  measured: number;
  messages: number;
  bytes: number;
  bytes_per_second: number | null;
  seconds: number | null;
  refused: { address: string; reason: string; remedy: string }[];
}

/** While nothing was copied yet, by what is shown instead: 10 MB a second. */
const ASSUMED_BYTES_PER_SECOND = 10_000_000;

/** `about` is what `POST /mailboxes` would be sent. A new one begins anew. */
export function Estimate({ about }: { about: Record<string, unknown> }) {
  const [id, setId] = useState<string | null>(null);
  const [error, setError] = useState<unknown>(null);
  const { data: run } = useRun(id);
  async function ask() {
    setError(null);
    try {
      const begun = body(await api.POST("/api/v1/mailboxes", { body: { ...about, skip_invalid: true, estimate: true } })) as unknown as Run;
      setId(begun.run_id);
    } catch (problem) {
      setError(problem);
    }
  }
  const why = run && run.state !== "done" && ended(run) ? (run.result as { reason?: string; remedy?: string } | null) : null;
  return (
    <div className="stack tight">
      <div className="row"><Button variant="default" loading={id !== null && (!run || !ended(run))} onClick={() => void ask()}>Estimate size, time and price</Button></div>
      <Problem error={error} />
      {why?.reason && <div className="note wait" role="status"><ReasonAndRemedy reason={why.reason} remedy={why.remedy} /></div>}
      {run?.state === "done" && <Said measured={run.result as unknown as Measured} />}
    </div>
  );
}

function Said({ measured }: { measured: Measured }) {
  const bills = ["administrator", "billing"].includes(useMe()?.role ?? "");
  const { data: price, error } = useQuery({
    queryKey: ["price-estimate", measured.mailboxes, measured.bytes],
    enabled: bills && measured.measured > 0,
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/prices/estimate", { params: { query: { mailboxes: measured.mailboxes, bytes: measured.bytes } }, signal })),
  });
  const looked = measured.measured === measured.mailboxes ? "each was looked at" : `from ${count(measured.measured)} that ${measured.measured === 1 ? "was" : "were"} looked at`;
  const time = measured.seconds !== null && measured.bytes_per_second !== null
    ? `about ${duration(measured.seconds)}, at the ${bytes(measured.bytes_per_second)}/s of first copies before`
    : `about ${duration(Math.max(1, measured.bytes / ASSUMED_BYTES_PER_SECOND))} if ${bytes(ASSUMED_BYTES_PER_SECOND)}/s go through; nothing was copied yet to tell from`;
  return (
    <section aria-label="Estimate" className="stack tight">
      {measured.measured > 0 && (
        <Facts facts={[
          ["Size", `${bytes(measured.bytes)} in ${count(measured.messages)} messages, ${looked}`],
          ["First copy", time],
          ["Price", price && `${price.month} ${price.currency} more each whole month${Number(price.first_copy) > 0 ? `, and ${price.first_copy} ${price.currency} once for the first copy` : ""}${Number(price.minimum) > 0 ? `; a month costs ${price.minimum} ${price.currency} at least` : ""}`],
        ]} />
      )}
      <Problem error={error} />
      {measured.refused.length > 0 && (
        <div className="note wait">
          <p>{mailboxes(measured.refused.length)} could not be looked at:</p>
          <ul className="lines small">{measured.refused.slice(0, 5).map((one) => <li key={one.address}><strong className="break">{one.address}</strong>: <ReasonAndRemedy reason={one.reason} remedy={one.remedy} /></li>)}</ul>
        </div>
      )}
    </section>
  );
}
