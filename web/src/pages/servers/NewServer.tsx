// Adds a mail server. What is wrong is said at its field, by the API, which alone knows the rules.
import { Button, NativeSelect, Radio, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { useNavigate, useSearchParams } from "react-router";
import { api, Refusal, type Schema } from "../../api/client";
import { Card, Page } from "../../parts/Page";
import { serverPath } from "../../parts/paths";
import { Problem } from "../../parts/Problem";
import { whole } from "../../parts/words";

type Role = Schema["ServerRole"];
type Method = Schema["LoginMethod"];

const METHODS: { value: Method; label: string }[] = [
  { value: "master", label: "Master user (Dovecot: user*master)" },
  { value: "authzid", label: "Authorisation identity (SASL PLAIN)" },
  { value: "each", label: "Each user's own password, from a file" },
];

export default function NewServer() {
  const [search] = useSearchParams();
  const navigate = useNavigate();
  const client = useQueryClient();
  const [role, setRole] = useState<Role>(search.get("role") === "standby" ? "standby" : "primary");
  const [method, setMethod] = useState<Method>("master");
  const [text, setText] = useState({ name: "", imap: "", user: "", password_file: "", form: "", ca_file: "", lmtp: "", doveadm: "", key_file: "", submission: "", home_user: "", home_file: "" });
  const [home, setHome] = useState<Method | "">("");
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);

  const wrong = (pointer: string) => {
    const item = error instanceof Refusal ? error.problem.errors?.find((one) => one.pointer === pointer) : undefined;
    return item ? `${whole(item.detail)}${item.nearest ? ` Did you mean ${item.nearest}?` : ""}` : undefined;
  };
  const field = (name: keyof typeof text, pointer: string) => ({
    value: text[name],
    onChange: (event: React.ChangeEvent<HTMLInputElement>) => {
      const { value } = event.currentTarget;
      setText((now) => ({ ...now, [name]: value }));
    },
    error: wrong(pointer),
    autoComplete: "off",
    spellCheck: false,
  });
  const given = (name: keyof typeof text) => text[name].trim() || undefined;

  async function add(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await api.POST("/api/v1/servers", {
        body: {
          name: text.name.trim(),
          role,
          imap: text.imap.trim(),
          ca_file: given("ca_file"),
          login: { as: method, user: method === "each" ? undefined : given("user"), password_file: given("password_file"), form: method === "master" ? given("form") : undefined },
          lmtp: given("lmtp"),
          submission: given("submission"),
          return_login: home === "" || role === "standby" ? undefined : { as: home, user: home === "each" ? undefined : given("home_user"), password_file: given("home_file") },
          manage: given("doveadm") || given("key_file") ? { doveadm: text.doveadm.trim(), key_file: text.key_file.trim() } : undefined,
        },
      });
      void client.invalidateQueries({ queryKey: ["servers"] });
      void client.invalidateQueries({ queryKey: ["status"] });
      navigate(serverPath(text.name.trim()));
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }

  const gateway = role === "primary" ? "source gateway" : "recovery gateway";
  return (
    <Page title="Add a server" above={["/servers", "Servers"]} about="Secrets never pass through this page: passwords are read from files on the gateway that talks to the server.">
      <form className="stack" style={{ maxWidth: "44rem" }} onSubmit={add}>
        <Card title="The server">
          <Radio.Group label="What is it?" value={role} onChange={(value) => setRole(value as Role)}>
            <div className="row" style={{ margin: "0.4rem 0" }}>
              <Radio value="primary" label="Primary: users work on it" />
              <Radio value="standby" label="Standby: it is to hold the mirror" />
            </div>
          </Radio.Group>
          <TextInput label="Name" description="How you call it here: letters, digits, - _ ." placeholder={role === "primary" ? "mail-a" : "dr-1"} required {...field("name", "/name")} />
          <TextInput label="IMAP address" description="imaps:// is TLS, imap:// insists on STARTTLS, imap+insecure:// is for this machine only." placeholder="imaps://mail-a.example.org" required {...field("imap", "/imap")} />
          <TextInput label="Certificate authority file" description={`Only where the certificate is private; a file on the ${gateway}.`} placeholder="/etc/understudy/mail-a.pem" {...field("ca_file", "/ca_file")} />
        </Card>
        <Card title="The log-in">
          <NativeSelect label="How it logs in" data={METHODS} value={method} onChange={(event) => setMethod(event.currentTarget.value as Method)} error={wrong("/login/as")} />
          {method !== "each" && <TextInput label="User" placeholder="understudy" required {...field("user", "/login/user")} />}
          <TextInput label="Password file" description={method === "each" ? `On the ${gateway}: lines of address:password.` : `On the ${gateway}: the password alone on the first line.`} placeholder={`/etc/understudy/${text.name.trim() || "mail-a"}.password`} required {...field("password_file", "/login/password_file")} />
          {method === "master" && <TextInput label="Form" description="How a master log-in is spelled; {user}*{master} unless given." placeholder="{user}*{master}" {...field("form", "/login/form")} />}
        </Card>
        <details className="card" open={Boolean(text.lmtp || text.doveadm || text.key_file)}>
          <summary>More: the way home, LMTP, submission, management</summary>
          <div className="stack tight" style={{ marginTop: "0.75rem" }}>
            {role === "primary" && (
              <>
                <NativeSelect label="Log-in for the way home" description="A log-in that may write, used at a switchback only. Without one, the log-in above is tried."
                  data={[{ value: "", label: "the log-in above" }, ...METHODS]} value={home} onChange={(event) => setHome(event.currentTarget.value as Method | "")} error={wrong("/return_login/as")} />
                {home !== "" && home !== "each" && <TextInput label="User for the way home" required {...field("home_user", "/return_login/user")} />}
                {home !== "" && <TextInput label="Password file for the way home" required {...field("home_file", "/return_login/password_file")} />}
              </>
            )}
            <TextInput label="LMTP address" placeholder="lmtp://mail-a.example.org:24" {...field("lmtp", "/lmtp")} />
            <TextInput label="Submission address" description="Where users hand in mail to send, for front doors." placeholder="smtps://mail-a.example.org" {...field("submission", "/submission")} />
            <TextInput label="Doveadm address" description="Lets a Dovecot standby keep the primary's UIDs." placeholder="https://dr-1.example.org:8080" {...field("doveadm", "/manage/doveadm")} />
            <TextInput label="Doveadm key file" {...field("key_file", "/manage/key_file")} />
          </div>
        </details>
        <Problem error={error} />
        <div className="row"><Button type="submit" loading={busy}>Add the server</Button><span className="quiet small">Next, it is checked.</span></div>
      </form>
    </Page>
  );
}
