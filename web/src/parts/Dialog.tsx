// A dialog: the question in its title, Escape and the button close it, the focus stays inside and goes back afterwards.
import { Modal } from "@mantine/core";
import type { ReactNode } from "react";

interface DialogProps {
  title: string;
  size?: string;
  /** A slip of the hand beside it does not close it. */
  sticky?: boolean;
  onClose: () => void;
  children: ReactNode;
}

export function Dialog({ title, size = "lg", sticky = false, onClose, children }: DialogProps) {
  return (
    <Modal.Root opened onClose={onClose} size={size} centered closeOnClickOutside={!sticky}>
      <Modal.Overlay />
      <Modal.Content>
        {/* Not `Modal.Header`: that is a second banner to a screen reader. */}
        <div className="dialog-head">
          <Modal.Title>{title}</Modal.Title>
          <Modal.CloseButton aria-label="Close" />
        </div>
        <Modal.Body>{children}</Modal.Body>
      </Modal.Content>
    </Modal.Root>
  );
}
