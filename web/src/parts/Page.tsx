// What every screen begins with: its name, where it belongs, what can be done. The name takes the focus when one comes from
// elsewhere, so that a screen reader says where one is.
import { type ReactNode, useEffect, useRef } from "react";
import { Link, useLocation } from "react-router";

interface PageProps {
  title: string;
  /** The name of the browser tab, where the title is too long or changes. */
  tab?: string;
  about?: ReactNode;
  /** Path and name of the screen above. */
  above?: [string, string];
  mark?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** The router's key of the address that the browser opened. */
const OPENED = "default";
let first = true;

export function Page({ title, tab, about, above, mark, actions, children }: PageProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  const name = tab ?? title;
  const { key } = useLocation();
  useEffect(() => {
    document.title = `${name} · Understudy`;
  }, [name]);
  useEffect(() => {
    // Whoever was quicker than the first screen comes from elsewhere too.
    if (!first || key !== OPENED) heading.current?.focus({ preventScroll: true });
    first = false;
    window.scrollTo(0, 0);
    // Only when one comes: not when the address changes below a screen that stays, such as by a filter.
  }, []);
  return (
    <>
      <div className="head">
        <div>
          {above && <nav className="crumbs" aria-label="Breadcrumb"><Link to={above[0]}>{above[1]}</Link></nav>}
          <div className="row">
            <h1 ref={heading} tabIndex={-1}>{title}</h1>
            {mark}
          </div>
          {about && <div className="about">{about}</div>}
        </div>
        {actions && <div className="actions">{actions}</div>}
      </div>
      {children}
    </>
  );
}

export function Card({ title, children, actions }: { title: string; children: ReactNode; actions?: ReactNode }) {
  return (
    <section className="card stack tight" aria-label={title}>
      <div className="row between"><h2>{title}</h2>{actions}</div>
      {children}
    </section>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <div className="stack tight quiet">{children}</div>;
}

/** A list of names and values; what has no value is left out. */
export function Facts({ facts }: { facts: [string, ReactNode][] }) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return (
    <dl className="facts">
      {shown.map(([name, value]) => <div key={name} style={{ display: "contents" }}><dt>{name}</dt><dd>{value}</dd></div>)}
    </dl>
  );
}
