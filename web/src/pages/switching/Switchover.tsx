// Moves users to the standby.
import { Wizard } from "./Wizard";

export default function Switchover() {
  return <Wizard target="standby" />;
}
