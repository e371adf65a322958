// Every screen: its address, its name in the navigation, its file. `admin-api/src/web.rs` serves the page at these addresses.
import { type ComponentType, lazy, type ReactNode } from "react";
import * as icons from "./parts/icons";

export interface Screen {
  path: string;
  element: ComponentType;
  /** In the navigation, when it stands there. */
  name?: string;
  icon?: ReactNode;
  /** After `g`, the key that leads here. */
  key?: string;
  /** A heading before it in the navigation. */
  heading?: string;
}

export const SCREENS: Screen[] = [
  { path: "/", name: "Overview", key: "o", icon: <icons.Gauge />, element: lazy(() => import("./pages/overview/Overview")) },
  { path: "/mailboxes", name: "Mailboxes", key: "m", icon: <icons.Mail />, element: lazy(() => import("./pages/mailboxes/Mailboxes")) },
  { path: "/mailboxes/:address", element: lazy(() => import("./pages/mailbox/MailboxPage")) },
  { path: "/protect", name: "Protect", key: "p", icon: <icons.Shield />, element: lazy(() => import("./pages/protect/Protect")) },
  { path: "/servers", name: "Servers", key: "s", icon: <icons.Rack />, element: lazy(() => import("./pages/servers/Servers")) },
  { path: "/servers/new", element: lazy(() => import("./pages/servers/NewServer")) },
  { path: "/servers/:name", element: lazy(() => import("./pages/servers/ServerPage")) },
  { path: "/switchover", name: "Switchover", key: "w", heading: "Change sides", icon: <icons.Over />, element: lazy(() => import("./pages/switching/Switchover")) },
  { path: "/switchback", name: "Switchback", key: "b", icon: <icons.Back />, element: lazy(() => import("./pages/switching/Switchback")) },
  { path: "/runs", name: "Runs", key: "r", heading: "Record", icon: <icons.List />, element: lazy(() => import("./pages/runs/Runs")) },
  { path: "/runs/:id", element: lazy(() => import("./pages/runs/RunPage")) },
  { path: "/events", name: "Events", key: "e", icon: <icons.Pulse />, element: lazy(() => import("./pages/events/Events")) },
  { path: "/tokens", name: "Tokens", key: "t", heading: "Access", icon: <icons.Key />, element: lazy(() => import("./pages/tokens/Tokens")) },
];
