// What the screen of the link asks, and how fast bytes go: the source gateway reports while it carries mail, so what changed between
// two reports, over the time between them, is the pace.
import { useQuery } from "@tanstack/react-query";
import { useEffect, useRef, useState } from "react";
import { api, body, type Schema } from "../../api/client";
import { POLL_MS } from "../../api/queries";
import { type Paced, pace, type Reported } from "./pace";

export type Overview = Schema["LinkOverview"];
export type Peer = Schema["LinkPeer"];
export type Invitation = Schema["LinkInvitation"];

/** A way that fell silent is shown soon. */
const LOOK_MS = POLL_MS / 2;

export function useLink() {
  return useQuery({
    queryKey: ["link"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/link", { signal })),
    refetchInterval: LOOK_MS,
  });
}

export function usePeers() {
  return useQuery({
    queryKey: ["link", "peers"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/link/peers", { params: { query: { limit: 1000 } }, signal })).items,
    refetchInterval: LOOK_MS,
  });
}

/** For those who may make tokens. */
export function useInvitations(enabled: boolean) {
  return useQuery({
    queryKey: ["link", "invitations"],
    enabled,
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/link/invitations", { signal })).items,
    refetchInterval: LOOK_MS,
  });
}

/** The pace of each kind and direction, once there were two reports while somebody looked. */
export function usePace(bytes: Overview["bytes"]): Paced | null {
  const last = useRef<Reported | null>(null);
  const [paced, setPaced] = useState<Paced | null>(null);
  useEffect(() => {
    const step = pace(last.current, bytes, Date.now());
    last.current = step.last;
    if (step.paced) setPaced(step.paced);
  }, [bytes]);
  return paced;
}
