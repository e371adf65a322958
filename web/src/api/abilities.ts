// What the running Understudy can do, by its own description: a screen offers nothing that would be answered with 404.
import { useQuery } from "@tanstack/react-query";
import { credentials } from "./session";

interface Description {
  paths: Record<string, Record<string, unknown>>;
}

/** `can("POST /api/v1/switchovers")`; undefined until the description is here. */
export type Can = (operation: string) => boolean | undefined;

export function useCan(): Can {
  const { data } = useQuery({ queryKey: ["description"], queryFn: describe, staleTime: Number.POSITIVE_INFINITY });
  return (operation) => {
    if (!data) return undefined;
    const [method = "", path = ""] = operation.split(" ");
    return data.paths[path]?.[method.toLowerCase()] !== undefined;
  };
}

async function describe(): Promise<Description> {
  const response = await fetch("/api/openapi.json", { headers: credentials("GET") });
  if (!response.ok) throw new Error(`the description of the API was answered with ${response.status}`);
  return (await response.json()) as Description;
}
