// Which mailboxes a change of sides is about.
import { NativeSelect, Radio, TextInput } from "@mantine/core";
import type { Server } from "../../api/client";
import { ChooseGroup } from "../../parts/Groups";
import type { Selection } from "../../parts/selection";
import { Names } from "../../parts/Confirm";
import type { Target } from "./look";

export type Scope =
  | { by: "one"; address: string; primary?: string }
  | { by: "chosen"; selection: Selection }
  | { by: "server"; server: string }
  | { by: "group"; group: string }
  | { by: "all" };

interface ScopesProps {
  scope: Scope;
  onScope: (scope: Scope) => void;
  servers: Server[];
  target: Target;
  kept: Selection | null;
}

export function Scopes({ scope, onScope, servers, target, kept }: ScopesProps) {
  function choose(by: string) {
    if (by === "one") onScope({ by, address: "" });
    if (by === "chosen" && kept) onScope({ by, selection: kept });
    if (by === "server") onScope({ by, server: "" });
    if (by === "group") onScope({ by, group: "" });
    if (by === "all") onScope({ by });
  }
  return (
    <Radio.Group value={scope.by} onChange={choose} aria-label="Which mailboxes">
      <div className="stack tight">
        {kept && <Radio value="chosen" label={`Those chosen before: ${kept.words}`} />}
        {scope.by === "chosen" && <Names names={scope.selection.addresses} />}
        <Radio value="one" label="One mailbox" />
        {scope.by === "one" && (
          <TextInput aria-label="Address" placeholder="ana@example.org" value={scope.address} autoComplete="off" spellCheck={false}
            onChange={(event) => onScope({ by: "one", address: event.currentTarget.value })} />
        )}
        <Radio value="server" label="Every mailbox of a primary" />
        {scope.by === "server" && (
          <NativeSelect aria-label="Primary" value={scope.server} onChange={(event) => onScope({ by: "server", server: event.currentTarget.value })}
            data={[{ value: "", label: "choose a primary" }, ...servers.filter((server) => server.role === "primary").map((server) => server.name)]} />
        )}
        <Radio value="group" label="A group" />
        {scope.by === "group" && <ChooseGroup name="Group" none="choose a group" value={scope.group} onChange={(group) => onScope({ by: "group", group })} />}
        <Radio value="all" label={target === "standby" ? "All protected mailboxes" : "All that are on the standby"} />
      </div>
    </Radio.Group>
  );
}
