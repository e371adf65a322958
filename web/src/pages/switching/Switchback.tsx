// Brings users back to the primary.
import { Wizard } from "./Wizard";

export default function Switchback() {
  return <Wizard target="primary" />;
}
