// What was chosen on one screen for the next: too many addresses for the address bar. It lives as long as the tab.
const KEY = "understudy.selection";

export interface Selection {
  addresses: string[];
  /** Where they live, when all on one primary. */
  primary?: string;
  /** How they were chosen, in words. */
  words: string;
}

export function keepSelection(selection: Selection): void {
  sessionStorage.setItem(KEY, JSON.stringify(selection));
}

export function keptSelection(): Selection | null {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Selection | null;
  } catch {
    return null;
  }
}
