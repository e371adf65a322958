// The keyboard's ways: one key, or `g` and one more. Never while something is being typed.
import { useEffect } from "react";
import { useNavigate } from "react-router";
import { Dialog } from "./Dialog";
import { SCREENS } from "../screens";

/** After `g`, the second key is waited for so long. */
const SECOND_MS = 1500;

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
}

export function useKeys({ onFind, onHelp }: { onFind: () => void; onHelp: () => void }) {
  const navigate = useNavigate();
  useEffect(() => {
    let armedAt = 0;
    function press(event: KeyboardEvent) {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        onFind();
        return;
      }
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector("[role=dialog]")) return;
      if (event.key === "?") onHelp();
      if (event.key === "/") {
        const field = document.querySelector<HTMLInputElement>("[data-search]");
        if (field) {
          event.preventDefault();
          field.focus();
        }
      }
      if (Date.now() - armedAt < SECOND_MS) {
        const screen = SCREENS.find((candidate) => candidate.key === event.key);
        if (screen) navigate(screen.path);
        armedAt = 0;
      } else if (event.key === "g") {
        armedAt = Date.now();
      }
    }
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [navigate, onFind, onHelp]);
}

export function KeyHelp({ onClose }: { onClose: () => void }) {
  return (
    <Dialog onClose={onClose} title="Keyboard shortcuts" size="md">
      <table className="plain">
        <thead><tr><th scope="col">Key</th><th scope="col">Does</th></tr></thead>
        <tbody>
          <tr><td><kbd>Ctrl</kbd> <kbd>K</kbd></td><td>Go to a mailbox or a screen</td></tr>
          <tr><td><kbd>/</kbd></td><td>Search in the list of this screen</td></tr>
          {SCREENS.filter((screen) => screen.key).map((screen) => (
            <tr key={screen.path}><td><kbd>g</kbd> <kbd>{screen.key}</kbd></td><td>{screen.name}</td></tr>
          ))}
          <tr><td><kbd>?</kbd></td><td>This help</td></tr>
          <tr><td><kbd>Esc</kbd></td><td>Close</td></tr>
        </tbody>
      </table>
    </Dialog>
  );
}
