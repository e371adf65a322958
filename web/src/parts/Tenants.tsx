// For the provider's administrators: whose mailboxes, runs, bills and audit they look at. Everything asked is asked for that tenant.
import { NativeSelect } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { api, body } from "../api/client";
import { actFor, type Me } from "../api/session";
import { Problem } from "./Problem";

export function Tenants({ me }: { me: Me }) {
  const [error, setError] = useState<unknown>(null);
  const { data: tenants } = useQuery({
    queryKey: ["tenants"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/tenants", { params: { query: { limit: 1000 } }, signal })).items,
    staleTime: 60_000,
  });
  // The provider alone: there is nobody to choose.
  if (!tenants || tenants.length < 2) return null;
  const own = tenants.find((tenant) => tenant.is_provider)?.name;
  return (
    <div className="tenant">
      <NativeSelect label="Tenant" size="xs" value={me.tenant} onChange={(event) => {
        const name = event.currentTarget.value;
        setError(null);
        void actFor(name === own ? null : name).catch(setError);
      }} data={tenants.map((tenant) => ({ value: tenant.name, label: tenant.is_provider ? `${tenant.name} (your own)` : tenant.name }))} />
      {me.tenant !== own && <p className="small" role="status">You act for {me.tenant}.</p>}
      <Problem error={error} />
    </div>
  );
}
