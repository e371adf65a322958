// Where a group is chosen: among those there are, or a new one is named.
import { NativeSelect, TextInput } from "@mantine/core";
import { type CSSProperties, useId } from "react";
import { useGroups } from "../api/queries";
import { count } from "./words";

interface ChooseProps {
  label?: string;
  /** Instead of a label, where the words beside it say what it is. */
  name?: string;
  /** What stands for no group. */
  none: string;
  value: string;
  onChange: (group: string) => void;
  className?: string;
  style?: CSSProperties;
}

/** One of the groups there are. */
export function ChooseGroup({ label, name, none, value, onChange, className, style }: ChooseProps) {
  const { data: groups = [] } = useGroups();
  const there = groups.some((group) => group.name === value);
  return (
    <NativeSelect className={className} style={style} label={label} aria-label={name} value={value} onChange={(event) => onChange(event.currentTarget.value)}
      data={[
        { value: "", label: none },
        ...(value && !there ? [{ value, label: value }] : []),
        ...groups.map((group) => ({ value: group.name, label: `${group.name} (${count(group.mailboxes)})` })),
      ]} />
  );
}

interface NameProps {
  label: string;
  description?: string;
  value: string;
  onChange: (group: string) => void;
  error?: string;
  autoFocus?: boolean;
}

/** A group there is, or a new one. */
export function NameGroup({ label, description, value, onChange, error, autoFocus }: NameProps) {
  const { data: groups = [] } = useGroups();
  const id = useId();
  return (
    <>
      <TextInput label={label} description={description} value={value} onChange={(event) => onChange(event.currentTarget.value)} placeholder="board"
        autoComplete="off" list={id} error={error} data-autofocus={autoFocus || undefined} />
      <datalist id={id}>{groups.map((group) => <option key={group.name} value={group.name} />)}</datalist>
    </>
  );
}
