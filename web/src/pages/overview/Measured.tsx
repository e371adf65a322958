// Lag and throughput over time.
import { useSamples } from "../../api/samples";
import { Chart } from "../../parts/Chart";
import { Card } from "../../parts/Page";
import { bytes, duration } from "../../parts/words";

export function Measured() {
  const samples = useSamples();
  const applied = samples.map((sample): [number, number | null] => [sample.at, sample.applied]);
  // While nothing is applied and nothing waits, there is no lag.
  const lag = samples.map((sample): [number, number | null] => [sample.at, sample.waiting > 0 ? Math.max(sample.waiting, sample.lag ?? 0) : sample.lag ?? 0]);
  const last = samples.at(-1);
  const unknown = samples.length > 2 && samples.every((sample) => sample.applied === null);
  return (
    <div className="columns">
      <Card title="Lag">
        <p><span className="number">{last ? duration(lag.at(-1)?.[1] ?? 0) : "–"}</span> <span className="quiet">from a change to the standby, now</span></p>
        <Chart label="Lag" points={lag} format={duration} />
      </Card>
      <Card title="Throughput">
        {unknown ? (
          <p className="quiet">The gateways count in processes of their own; ask theirs at <code>/metrics</code> for throughput.</p>
        ) : (
          <>
            <p>
              <span className="number">{last?.applied != null ? `${last.applied.toFixed(1)}` : "–"}</span> <span className="quiet">transactions a second, now</span>
              {last?.bytes != null && <span className="quiet">; {bytes(last.bytes)}/s of content over the link</span>}
            </p>
            <Chart label="Throughput" points={applied} format={(value) => `${value.toFixed(value < 10 ? 1 : 0)}/s`} />
          </>
        )}
      </Card>
      <p className="small quiet" style={{ gridColumn: "1 / -1", marginTop: "-0.5rem" }}>Measured since this tab was opened, for up to an hour. For longer, collect <code>/metrics</code>.</p>
    </div>
  );
}
