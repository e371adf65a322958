// Goes anywhere from anywhere: type part of an address or the name of a screen.
import { TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";
import { Dialog } from "./Dialog";
import { api, body } from "../api/client";
import { useMe } from "../api/session";
import { isFor, SCREENS } from "../screens";
import { mailboxPath } from "./paths";

const FOUND = 8;

export function GoTo({ onClose }: { onClose: () => void }) {
  const navigate = useNavigate();
  const me = useMe();
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const [settled] = useDebouncedValue(text.trim(), 150);
  const found = useQuery({
    queryKey: ["find", settled],
    enabled: settled.length > 0,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/mailboxes", { params: { query: { q: settled, limit: FOUND } }, signal })).items,
  });
  const wanted = text.trim().toLowerCase();
  const screens = SCREENS.filter((screen) => me && isFor(screen, me) && screen.name?.toLowerCase().includes(wanted))
    .map((screen) => ({ path: screen.path, name: screen.name ?? "", about: "screen" }));
  const boxes = wanted ? (found.data ?? []).map((mailbox) => ({ path: mailboxPath(mailbox), name: mailbox.address, about: mailbox.primary })) : [];
  const options = [...screens, ...boxes];
  const chosen = Math.min(at, Math.max(0, options.length - 1));

  function go(path: string | undefined) {
    if (!path) return;
    onClose();
    navigate(path);
  }

  return (
    <Dialog onClose={onClose} title="Go to" size="md">
      <TextInput data-autofocus aria-label="Mailbox or screen" placeholder="Part of an address, or a screen" value={text} role="combobox"
        aria-expanded="true" aria-controls="go-to-options" aria-activedescendant={options.length > 0 ? `go-to-${chosen}` : undefined} autoComplete="off" spellCheck={false}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === "ArrowDown") setAt((chosen + 1) % Math.max(1, options.length));
          else if (event.key === "ArrowUp") setAt((chosen + options.length - 1) % Math.max(1, options.length));
          else if (event.key === "Enter") go(options[chosen]?.path);
          else return;
          event.preventDefault();
        }} />
      <div id="go-to-options" role="listbox" aria-label="Places" className="find-list" style={{ marginTop: "0.6rem" }}>
        {options.map((option, index) => (
          <div key={option.path} id={`go-to-${index}`} role="option" aria-selected={index === chosen} onMouseEnter={() => setAt(index)} onClick={() => go(option.path)}>
            <span className="break">{option.name}</span><span className="quiet small">{option.about}</span>
          </div>
        ))}
      </div>
      {options.length === 0 && <p className="quiet" role="status">{found.isFetching ? "Looking…" : "Nothing is called so."}</p>}
    </Dialog>
  );
}
