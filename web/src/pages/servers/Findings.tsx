// What a check of a server found: each capability with what it means for mirroring.
import type { Schema } from "../../api/client";
import { Say } from "../../parts/Say";
import { FindingMark } from "../../parts/State";
import { whole } from "../../parts/words";

const ORDER = ["failed", "warning", "note", "ok"];

export function Findings({ check }: { check: Schema["Check"] }) {
  const findings = [...check.findings].sort((a, b) => ORDER.indexOf(a.level) - ORDER.indexOf(b.level));
  return (
    <div className="stack tight">
      <div className="scroll" tabIndex={0} role="region" aria-label="Findings">
        <table className="plain">
          <thead><tr><th scope="col">Verdict</th><th scope="col">Looked at</th><th scope="col">What it means</th></tr></thead>
          <tbody>
            {findings.map((finding) => (
              <tr key={finding.name}>
                <td><FindingMark level={finding.level} /></td>
                <td>{finding.name}</td>
                <td><Say text={whole(finding.meaning)} />{finding.remedy && <> <strong><Say text={whole(finding.remedy)} /></strong></>}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {check.capabilities.length > 0 && (
        <details className="small">
          <summary>All {check.capabilities.length} capabilities the server names</summary>
          <p style={{ marginTop: "0.4rem" }}>{check.capabilities.map((capability) => <span key={capability}><code>{capability}</code> </span>)}</p>
        </details>
      )}
    </div>
  );
}
