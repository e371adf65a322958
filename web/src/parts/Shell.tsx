// Commands to copy.
import { Button } from "@mantine/core";
import { useClipboard } from "@mantine/hooks";

export function Shell({ children, label = "Commands" }: { children: string; label?: string }) {
  const { copy, copied } = useClipboard({ timeout: 2000 });
  return (
    <div className="shell">
      <pre tabIndex={0} role="region" aria-label={label}><code>{children}</code></pre>
      <Button size="compact-xs" variant="default" onClick={() => copy(children)} aria-label={`Copy: ${label}`}>
        {copied ? "Copied" : "Copy"}
      </Button>
    </div>
  );
}
