// Every screen: its address, its name in the navigation, its file. `admin-api/src/web.rs` serves the page at these addresses.
import { type ComponentType, lazy, type ReactNode } from "react";
import type { Me } from "./api/session";
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
  /** The roles it is for, when it is not for all who look after mailboxes. */
  for?: string[];
  /** Also for the `user` of one mailbox. */
  own?: boolean;
  /** For the provider's people: it is about all tenants at once. */
  provider?: boolean;
}

/** Whether a screen is for them. */
export function isFor(screen: Screen, me: Me): boolean {
  if (screen.provider && !me.is_provider) return false;
  return me.role === "user" ? screen.own === true : !screen.for || screen.for.includes(me.role);
}

export const SCREENS: Screen[] = [
  { path: "/", name: "Overview", key: "o", icon: <icons.Gauge />, element: lazy(() => import("./pages/overview/Overview")) },
  { path: "/mailboxes", name: "Mailboxes", key: "m", icon: <icons.Mail />, element: lazy(() => import("./pages/mailboxes/Mailboxes")) },
  { path: "/mailboxes/:address", own: true, element: lazy(() => import("./pages/mailbox/MailboxPage")) },
  { path: "/protect", name: "Protect", key: "p", icon: <icons.Shield />, element: lazy(() => import("./pages/protect/Protect")) },
  { path: "/servers", name: "Servers", key: "s", icon: <icons.Rack />, element: lazy(() => import("./pages/servers/Servers")) },
  { path: "/servers/new", element: lazy(() => import("./pages/servers/NewServer")) },
  { path: "/servers/:name", element: lazy(() => import("./pages/servers/ServerPage")) },
  { path: "/map", name: "Map", key: "x", icon: <icons.Map />, element: lazy(() => import("./pages/map/Map")) },
  { path: "/link", name: "Link", key: "k", provider: true, icon: <icons.Chain />, element: lazy(() => import("./pages/link/LinkPage")) },
  { path: "/policies", name: "Policies", key: "l", icon: <icons.Scales />, element: lazy(() => import("./pages/policies/Policies")) },
  { path: "/policies/:name", element: lazy(() => import("./pages/policies/PolicyPage")) },
  { path: "/switchover", name: "Switchover", key: "w", heading: "Change sides", icon: <icons.Over />, element: lazy(() => import("./pages/switching/Switchover")) },
  { path: "/switchback", name: "Switchback", key: "b", icon: <icons.Back />, element: lazy(() => import("./pages/switching/Switchback")) },
  { path: "/runs", name: "Runs", key: "r", heading: "Record", icon: <icons.List />, element: lazy(() => import("./pages/runs/Runs")) },
  { path: "/runs/:id", element: lazy(() => import("./pages/runs/RunPage")) },
  { path: "/events", name: "Events", key: "e", icon: <icons.Pulse />, element: lazy(() => import("./pages/events/Events")) },
  { path: "/notifications", name: "Notifications", key: "n", icon: <icons.Bell />, element: lazy(() => import("./pages/notifications/Notifications")) },
  { path: "/billing", name: "Billing", key: "i", for: ["administrator", "billing"], icon: <icons.Coin />, element: lazy(() => import("./pages/billing/Billing")) },
  { path: "/billing/:month", for: ["administrator", "billing"], element: lazy(() => import("./pages/billing/InvoicePage")) },
  { path: "/people", name: "People", key: "u", heading: "Access", for: ["administrator"], icon: <icons.People />, element: lazy(() => import("./pages/people/People")) },
  { path: "/me", name: "Your account", key: "y", own: true, icon: <icons.Person />, element: lazy(() => import("./pages/people/Account")) },
  { path: "/settings", name: "Settings", key: "c", icon: <icons.Sliders />, element: lazy(() => import("./pages/settings/Settings")) },
  { path: "/audit", name: "Audit", key: "a", for: ["administrator", "auditor"], icon: <icons.Book />, element: lazy(() => import("./pages/audit/Audit")) },
  { path: "/tokens", name: "Tokens", key: "t", for: ["administrator"], icon: <icons.Key />, element: lazy(() => import("./pages/tokens/Tokens")) },
];
