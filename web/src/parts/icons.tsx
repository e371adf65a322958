// Small drawings. They never stand alone: a word says the same.
import type { ReactNode } from "react";

function Icon({ children, size = 18 }: { children: ReactNode; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="1.9"
      strokeLinecap="round" strokeLinejoin="round" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

export const Gauge = () => <Icon><path d="M4 18a9 9 0 1 1 16 0M12 14l4-5" /></Icon>;
export const Mail = () => <Icon><rect x="3" y="5" width="18" height="14" rx="2" /><path d="m4 7 8 6 8-6" /></Icon>;
export const Shield = () => <Icon><path d="M12 3 5 6v5c0 5 3 8 7 10 4-2 7-5 7-10V6z" /><path d="M12 8.5v6M9 11.5h6" /></Icon>;
export const Chain = () => <Icon><path d="M10 14.5a4 4 0 0 1 0-5.7l3-3a4 4 0 0 1 5.7 5.7l-1.5 1.5M14 9.5a4 4 0 0 1 0 5.7l-3 3a4 4 0 0 1-5.7-5.7l1.5-1.5" /></Icon>;
export const Map = () => <Icon><path d="M7.5 6H14a3 3 0 0 1 0 6h-4a3 3 0 0 0 0 6h6.5" /><circle cx="5.5" cy="6" r="2" /><circle cx="18.5" cy="18" r="2" /></Icon>;
export const Sliders = () => <Icon><path d="M4 7h9M17 7h3M4 17h3M11 17h9" /><circle cx="15" cy="7" r="2" /><circle cx="9" cy="17" r="2" /></Icon>;
export const Rack = () => <Icon><rect x="4" y="4" width="16" height="7" rx="1.5" /><rect x="4" y="13" width="16" height="7" rx="1.5" /><path d="M8 7.5h.01M8 16.5h.01" /></Icon>;
export const Scales = () => <Icon><path d="M12 4v16M8 20h8M5 7h14M5 7l-2.5 6a2.8 2.8 0 0 0 5 0zM19 7l-2.5 6a2.8 2.8 0 0 0 5 0z" /></Icon>;
export const Over = () => <Icon><path d="M4 8h13M13 4l4 4-4 4M20 16H9" /></Icon>;
export const Back = () => <Icon><path d="M20 8H7M11 4 7 8l4 4M4 16h11" /></Icon>;
export const List = () => <Icon><path d="M9 6h11M9 12h11M9 18h11M4.5 6h.01M4.5 12h.01M4.5 18h.01" /></Icon>;
export const Pulse = () => <Icon><path d="M3 12h4l3-8 4 16 3-8h4" /></Icon>;
export const Bell = () => <Icon><path d="M6 16V11a6 6 0 0 1 12 0v5l1.5 2h-15zM10 21h4" /></Icon>;
export const Coin = () => <Icon><circle cx="12" cy="12" r="8.5" /><path d="M15 8.8a4 4 0 1 0 0 6.4M7.5 11h5M7.5 13.2h5" /></Icon>;
export const Key = () => <Icon><circle cx="8" cy="15" r="4" /><path d="m11 12 9-9M16 7l3 3" /></Icon>;
export const People = () => <Icon><circle cx="9" cy="8" r="3.5" /><path d="M2.5 20a6.5 6.5 0 0 1 13 0M16 4.6a3.5 3.5 0 0 1 0 6.8M18 14.2a6.5 6.5 0 0 1 3.5 5.8" /></Icon>;
export const Person = () => <Icon><circle cx="12" cy="8" r="4" /><path d="M4.5 21a7.5 7.5 0 0 1 15 0" /></Icon>;
export const Book = () => <Icon><path d="M5 4h12a2 2 0 0 1 2 2v14H7a2 2 0 0 1-2-2zM5 17.5A1.5 1.5 0 0 1 6.500 16H19M9 8h6" /></Icon>;
export const Menu = () => <Icon size={20}><path d="M4 7h16M4 12h16M4 17h16" /></Icon>;
export const Sun = () => <Icon><circle cx="12" cy="12" r="4" /><path d="M12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6 7 7M17 17l1.4 1.4M5.6 18.4 7 17M17 7l1.4-1.4" /></Icon>;
export const Moon = () => <Icon><path d="M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z" /></Icon>;
export const Search = () => <Icon><circle cx="11" cy="11" r="6.5" /><path d="m20 20-4.2-4.2" /></Icon>;
export const Braces = () => <Icon><path d="m8 8-4 4 4 4M16 8l4 4-4 4" /></Icon>;
