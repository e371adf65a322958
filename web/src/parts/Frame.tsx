// The frame around every screen: where one can go, whether what is shown is live, and the keyboard's ways.
import { ActionIcon, Button, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { Suspense, useEffect, useState } from "react";
import { Link, Navigate, NavLink, Route, Routes, useLocation } from "react-router";
import { usePulse } from "../api/pulse";
import { leave, useMe } from "../api/session";
import { isFor, SCREENS } from "../screens";
import { useNow } from "./Ago";
import { Failsafe } from "./Failsafe";
import { GoTo } from "./GoTo";
import * as icons from "./icons";
import { KeyHelp, useKeys } from "./keys";
import { Page } from "./Page";
import { Tenants } from "./Tenants";

/** Without any sign of life for so long, what is shown may be stale. */
const STALE_MS = 20_000;

export function Frame() {
  const [menu, setMenu] = useState(false);
  const [finding, setFinding] = useState(false);
  const [help, setHelp] = useState(false);
  const { pathname } = useLocation();
  const me = useMe();
  const screens = SCREENS.filter((screen) => me && isFor(screen, me));
  // Whose screens are few begins at their own mailbox.
  const own = me?.role === "user" && me.mailbox ? `/mailboxes/${encodeURIComponent(me.mailbox)}` : null;
  useEffect(() => setMenu(false), [pathname]);
  useKeys({ onFind: () => setFinding(true), onHelp: () => setHelp(true) });
  return (
    <div className="frame">
      <a className="skip" href="#main">Skip to the content</a>
      <header className="top">
        <ActionIcon className="menu-button" variant="subtle" size="lg" onClick={() => setMenu(!menu)} aria-expanded={menu}
          aria-controls="navigation" aria-label="Menu"><icons.Menu /></ActionIcon>
        <Link to="/" className="brand"><img src={`${import.meta.env.BASE_URL}icon.svg`} alt="" width="26" height="26" />Understudy</Link>
        <span className="spring" />
        <Freshness />
        <Button className="wide" variant="default" size="xs" leftSection={<icons.Search />} onClick={() => setFinding(true)}>
          Go to… <kbd style={{ marginLeft: "0.5rem" }}>Ctrl K</kbd>
        </Button>
        <SchemeSwitch />
        <Link to="/me" className="wide small">{me?.name}</Link>
        <Button className="wide" variant="subtle" size="xs" onClick={() => void leave()}>Sign out</Button>
      </header>
      <nav id="navigation" className={menu ? "side open" : "side"} aria-label="Screens">
        {me?.is_provider && me.role === "administrator" && <Tenants me={me} />}
        <ul>
          {own && <li><NavLink to={own}><icons.Mail />Your mailbox</NavLink></li>}
          {screens.filter((screen) => screen.name).map((screen) => (
            <li key={screen.path}>
              {screen.heading && <h2>{screen.heading}</h2>}
              <NavLink to={screen.path} end={screen.path === "/"} onClick={() => setMenu(false)}>{screen.icon}{screen.name}</NavLink>
            </li>
          ))}
          <li><h2>Reference</h2><a href="/api/docs/"><icons.Braces />REST API</a></li>
          {menu && <li><Button variant="subtle" onClick={() => void leave()}>Sign out</Button></li>}
        </ul>
      </nav>
      <main id="main" className="main" tabIndex={-1}>
        <Failsafe key={pathname}>
          <Suspense fallback={<p className="quiet">Loading…</p>}>
            <Routes>
              {own && <Route path="/" element={<Navigate to={own} replace />} />}
              {me && SCREENS.map((screen) => (
                <Route key={screen.path} path={screen.path} element={isFor(screen, me) ? <screen.element /> : <NotYours role={me.role} provider={screen.provider} />} />
              ))}
              <Route path="*" element={me ? <Nowhere /> : <p className="quiet">Loading…</p>} />
            </Routes>
          </Suspense>
        </Failsafe>
      </main>
      {finding && <GoTo onClose={() => setFinding(false)} />}
      {help && <KeyHelp onClose={() => setHelp(false)} />}
    </div>
  );
}

function Nowhere() {
  return <Page title="There is no such screen"><p>The address leads nowhere. <Link to="/">Go to where you begin</Link>.</p></Page>;
}

/** In the words of the API, which refuses it too. */
function NotYours({ role, provider }: { role: string; provider?: boolean }) {
  return (
    <Page title="This screen is for others">
      <p>{provider && role !== "user" ? "This is about all tenants, so it is for the provider's people." : `The role ${role} may not do this.`} Ask somebody whose role may, or <Link to="/">go to where you begin</Link>.</p>
    </Page>
  );
}

function Freshness() {
  const { heardAt, streaming } = usePulse();
  const now = useNow();
  if (heardAt === 0) return <span className="fresh" role="status">connecting</span>;
  if (now - heardAt > STALE_MS) return <span className="fresh stale" role="status">stale since {new Date(heardAt).toLocaleTimeString()}</span>;
  return <span className="fresh live" role="status" title={streaming ? "Changes arrive as they happen" : "Asking every 10 s"}>{streaming ? "live" : "live, every 10 s"}</span>;
}

function SchemeSwitch() {
  const { setColorScheme } = useMantineColorScheme();
  const dark = useComputedColorScheme("light") === "dark";
  const label = dark ? "Use light colours" : "Use dark colours";
  return (
    <ActionIcon variant="subtle" size="lg" onClick={() => setColorScheme(dark ? "light" : "dark")} aria-label={label} title={label}>
      {dark ? <icons.Sun /> : <icons.Moon />}
    </ActionIcon>
  );
}
