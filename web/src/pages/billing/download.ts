// Saves what the API answers as a file: a plain link could not say who asks.
import { Refusal } from "../../api/client";
import { credentials } from "../../api/session";

export async function download(path: string, name: string): Promise<void> {
  const response = await fetch(path, { cache: "no-store", headers: credentials("GET") });
  if (!response.ok) throw new Refusal(await response.json());
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}
