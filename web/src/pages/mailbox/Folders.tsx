// The folders of a mailbox on both sides, as of the last transaction applied.
import { Skeleton } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { api, body, type Mailbox } from "../../api/client";
import { Card } from "../../parts/Page";
import { Problem } from "../../parts/Problem";
import { Mark } from "../../parts/State";
import { bytes, count, plural, whole } from "../../parts/words";

export function Folders({ mailbox }: { mailbox: Mailbox }) {
  const { data: folders, error } = useQuery({
    queryKey: ["mailbox", mailbox.address, mailbox.primary, "folders"],
    queryFn: async ({ signal }) => body(await api.GET("/api/v1/mailboxes/{address}/folders", {
      params: { path: { address: mailbox.address }, query: { primary: mailbox.primary } }, signal,
    })).items,
  });
  return (
    <Card title="Folders">
      <Problem error={error} />
      {!folders && !error && <Skeleton h={200} />}
      {folders?.length === 0 && <p className="quiet">None is on the standby yet: the first copy has not begun to be applied.</p>}
      {folders && folders.length > 0 && (
        <>
          <p className="quiet small">As of the last transaction applied, of {plural(folders.length, "folder")}. A verification asks both servers themselves.</p>
          <div className="scroll" tabIndex={0} role="region" aria-label="Folders of both sides">
            <table className="plain">
              <thead>
                <tr><th scope="col">Folder</th><th scope="col" className="right">On {mailbox.primary}</th><th scope="col" className="right">Size</th><th scope="col" className="right">On {mailbox.standby}</th>
                  <th scope="col">Called there</th><th scope="col" className="right">UIDVALIDITY</th><th scope="col">UIDs</th></tr>
              </thead>
              <tbody>
                {folders.map((folder) => {
                  const lacking = folder.primary.messages - (folder.standby?.messages ?? 0);
                  const uses = folder.special_use.length > 0 ? ` (${folder.special_use.join(", ")})` : "";
                  return (
                    <tr key={JSON.stringify(folder.path)}>
                      <td className="break">{folder.folder}<span className="quiet">{uses}</span></td>
                      {folder.selectable ? (
                        <>
                          <td className="right number">{count(folder.primary.messages)}</td>
                          <td className="right number nowrap">{bytes(folder.primary.bytes ?? 0)}</td>
                          <td className="right number">{folder.standby ? count(folder.standby.messages) : "–"}{lacking > 0 && <div><Mark tone="wait" icon="≠">{`${count(lacking)} set aside`}</Mark></div>}</td>
                          <td className="break quiet">{folder.standby?.name ?? "not there yet"}</td>
                          <td className="right number">{folder.primary.uid_validity}{folder.standby && folder.standby.uid_validity !== folder.primary.uid_validity && <div className="quiet">there {folder.standby.uid_validity}</div>}</td>
                          <td>{folder.uid_continuity ? "the same" : <span title={whole(folder.uid_continuity_lost)}>its own</span>}</td>
                        </>
                      ) : <td colSpan={6} className="quiet">only holds other folders</td>}
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        </>
      )}
    </Card>
  );
}
