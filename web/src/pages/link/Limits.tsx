// What the link may use of the line, by the hours of the week; changed while it holds.
import { Button, Group, Stack, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, Refusal, type Schema } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { Dialog } from "../../parts/Dialog";
import { Card, Facts } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { whole } from "../../parts/words";

type Set = Schema["LinkLimits"];

export function Limits({ limits, may }: { limits: Set; may: boolean }) {
  const [changing, setChanging] = useState(false);
  return (
    <Card title="Limits" actions={may && <Button size="compact-sm" variant="default" onClick={() => setChanging(true)}>Change…</Button>}>
      <Facts facts={[
        ["All that is sent here", limits.wire || "unlimited"],
        ["First copies alone", limits.seeding || "unlimited"],
        ["Set", limits.changed_by && <><Ago time={limits.changed_at} /> by {limits.changed_by}</>],
      ]} />
      <p className="quiet small">In bytes on the wire, by the source gateway's clock. Live changes pass before first copies; heartbeats are never held back.</p>
      {changing && <Change limits={limits} onClose={() => setChanging(false)} />}
    </Card>
  );
}

function Change({ limits, onClose }: { limits: Set; onClose: () => void }) {
  const client = useQueryClient();
  const [wire, setWire] = useState(limits.wire);
  const [seeding, setSeeding] = useState(limits.seeding);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const wrong = (pointer: string) => {
    const found = error instanceof Refusal ? error.problem.errors?.find((item) => item.pointer === pointer) : undefined;
    return found && whole(found.detail);
  };

  async function change(event: FormEvent) {
    event.preventDefault();
    setError(null);
    setBusy(true);
    try {
      // What is empty has no limit.
      await api.PUT("/api/v1/link/limits", { body: { wire: wire.trim() || "unlimited", seeding: seeding.trim() || "unlimited" } });
      await client.invalidateQueries({ queryKey: ["link"] });
      onClose();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  return (
    <Dialog onClose={onClose} title="Limits of the link">
      <form onSubmit={change}>
        <Stack gap="sm">
          <TextInput label="All that is sent here" description="Such as: mon-fri 08:00-18:00: 2 MB/s, else unlimited" value={wire}
            onChange={(event) => setWire(event.currentTarget.value)} autoComplete="off" spellCheck={false} data-autofocus error={wrong("/wire")} />
          <TextInput label="First copies alone" description="Such as: mon-fri 08:00-18:00: off, else unlimited" value={seeding}
            onChange={(event) => setSeeding(event.currentTarget.value)} autoComplete="off" spellCheck={false} error={wrong("/seeding")} />
          <p className="quiet small">
            Rules are read from left to right, and the first that fits counts. A span like <code>22:00-06:00</code> goes on into the next day. Rates
            are <code>2 MB/s</code>, <code>500 kB/s</code>, <code>20 Mbit/s</code> or <code>unlimited</code>, and for first copies <code>off</code>. It holds within a second, also for what is under way.
          </p>
          {!wrong("/wire") && !wrong("/seeding") && <Problem error={error} />}
          <Group justify="flex-end"><Button variant="default" onClick={onClose}>Cancel</Button><Button type="submit" loading={busy}>Set them</Button></Group>
        </Stack>
      </form>
    </Dialog>
  );
}
