// The rows in view, and only those: fifty thousand scroll like fifty.
import { Checkbox } from "@mantine/core";
import { useMediaQuery } from "@mantine/hooks";
import { type ColumnDef, flexRender, getCoreRowModel, useReactTable } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useMemo, useRef } from "react";
import { Link } from "react-router";
import type { Mailbox } from "../../api/client";
import { Ago } from "../../parts/Ago";
import { mailboxPath } from "../../parts/paths";
import { MailboxMark } from "../../parts/State";
import { count, duration } from "../../parts/words";
import type { useMailboxes } from "./useMailboxes";

/** Some, by their keys, or all that match the filter. */
export interface Chosen {
  all: boolean;
  some: ReadonlyMap<string, Mailbox>;
}

export const nobody: Chosen = { all: false, some: new Map() };
const keyOf = (mailbox: Mailbox) => `${mailbox.primary}\n${mailbox.address}`;

/** Heights of a row in pixels; on a phone it has two lines. */
const ROW = 44;
const TALL = 66;

interface Column {
  width: string;
  narrow?: boolean;
  right?: boolean;
}

const COLUMNS: (ColumnDef<Mailbox> & { meta: Column })[] = [
  { id: "address", header: "Address", meta: { width: "minmax(11rem, 2.2fr)", narrow: true }, cell: ({ row }) => <Name mailbox={row.original} /> },
  { id: "state", header: "State", meta: { width: "minmax(8.2rem, 1fr)", narrow: true }, cell: ({ row }) => <MailboxMark state={row.original.state} /> },
  { id: "sides", header: "Servers", meta: { width: "minmax(8rem, 1.2fr)" }, cell: ({ row }) => `${row.original.primary} → ${row.original.standby}` },
  { id: "lag", header: "Not yet applied", meta: { width: "minmax(7.5rem, 1fr)", right: true }, cell: ({ row }) => waiting(row.original) },
  { id: "copied", header: "Copied", meta: { width: "minmax(7rem, 1fr)", right: true }, cell: ({ row }) => copied(row.original) },
  { id: "group", header: "Group", meta: { width: "minmax(4rem, 0.7fr)" }, cell: ({ row }) => row.original.group },
  { id: "last", header: "Last change", meta: { width: "minmax(6.5rem, 0.8fr)" }, cell: ({ row }) => <Ago time={row.original.last_transaction_at} /> },
];

function Name({ mailbox }: { mailbox: Mailbox }) {
  const note = mailbox.detail?.reason ?? (mailbox.set_aside > 0 ? `${count(mailbox.set_aside)} set aside` : undefined);
  return <Link to={mailboxPath(mailbox)} title={note ? `${mailbox.address}: ${note}` : mailbox.address}>{mailbox.address}</Link>;
}

function waiting({ lag }: Mailbox): string {
  return lag.transactions === 0 ? "nothing" : `${count(lag.transactions)}, ${duration(lag.seconds)}`;
}

function copied({ progress, state }: Mailbox): string {
  if (progress.messages_total === 0) return state === "seeding" ? "counting…" : "–";
  if (progress.messages_done >= progress.messages_total) return count(progress.messages_total);
  return `${count(progress.messages_done)} of ${count(progress.messages_total)}`;
}

interface TableProps {
  list: ReturnType<typeof useMailboxes>;
  chosen: Chosen;
  setChosen: (chosen: Chosen) => void;
  total: number | undefined;
}

export function Table({ list, chosen, setChosen, total }: TableProps) {
  const { rows, look } = list;
  const narrow = useMediaQuery("(max-width: 48em)", false, { getInitialValueInEffect: false });
  const table = useReactTable({
    data: rows,
    columns: COLUMNS,
    getCoreRowModel: getCoreRowModel(),
    getRowId: keyOf,
    state: { columnVisibility: Object.fromEntries(COLUMNS.map((column) => [column.id ?? "", !narrow || Boolean(column.meta.narrow)])) },
  });
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => (narrow ? TALL : ROW),
    overscan: 12,
  });
  useEffect(() => virtual.measure(), [virtual, narrow]);
  const items = virtual.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items.at(-1)?.index ?? 0;
  useEffect(() => look(first, last), [look, first, last]);

  const template = useMemo(() => {
    const widths = table.getVisibleLeafColumns().map((column) => (column.columnDef.meta as Column).width);
    return `1.6rem ${narrow ? "minmax(0, 1fr) auto" : widths.join(" ")}`;
  }, [narrow, table]);
  const everyone = rows.length > 0 && (chosen.all || chosen.some.size >= rows.length);

  function toggle(mailbox: Mailbox) {
    const some = new Map(chosen.all ? rows.map((row) => [keyOf(row), row] as const) : chosen.some);
    if (!some.delete(keyOf(mailbox))) some.set(keyOf(mailbox), mailbox);
    setChosen({ all: false, some });
  }

  const model = table.getRowModel().rows;
  return (
    <div className="grid" role="table" aria-label="Mailboxes" aria-rowcount={total ?? (list.more ? -1 : rows.length)}>
      <div role="rowgroup">
        <div role="row" className="heads" style={{ gridTemplateColumns: template }} aria-rowindex={1}>
          <div role="columnheader">
            <Checkbox size="xs" aria-label="Choose all shown" disabled={rows.length === 0} checked={everyone} indeterminate={!everyone && chosen.some.size > 0}
              onChange={() => setChosen(everyone ? nobody : { all: !list.more, some: list.more ? new Map(rows.map((row) => [keyOf(row), row])) : new Map() })} />
          </div>
          {table.getHeaderGroups()[0]?.headers.map((header) => (
            <div key={header.id} role="columnheader" className={(header.column.columnDef.meta as Column).right ? "right" : undefined}>
              {flexRender(header.column.columnDef.header, header.getContext())}
            </div>
          ))}
        </div>
      </div>
      <div ref={scroller} className="body" role="rowgroup" tabIndex={0} aria-label="Rows" style={{ height: virtual.getTotalSize() }}>
        <div role="presentation" style={{ height: virtual.getTotalSize(), position: "relative" }}>
          {items.map((item) => {
            const row = model[item.index];
            if (!row) return null;
            const selected = chosen.all || chosen.some.has(row.id);
            return (
              <div key={row.id} role="row" aria-rowindex={item.index + 2} aria-selected={selected}
                style={{ gridTemplateColumns: template, height: item.size, transform: `translateY(${item.start}px)` }}>
                <div role="cell"><Checkbox size="xs" aria-label={`Choose ${row.original.address}`} checked={selected} onChange={() => toggle(row.original)} /></div>
                {row.getVisibleCells().map((cell) => (
                  <div key={cell.id} role="cell" className={(cell.column.columnDef.meta as Column).right ? "right" : undefined}>
                    {flexRender(cell.column.columnDef.cell, cell.getContext())}
                    {narrow && cell.column.id === "address" && <div className="quiet small">waiting: {waiting(row.original)}</div>}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}
