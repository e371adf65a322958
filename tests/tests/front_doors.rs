//! Front doors: stock proxies and a stock MTA bring everybody to the side of the route, whatever Understudy and its database do.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::oneshot::{self, error::TryRecvError};
use understudy_database::route;
use understudy_front_door::FrontDoors;
use understudy_protocol::{MailboxId, Side};
use understudy_tests::client::{Client, Value};
use understudy_tests::dovecot::{Dovecot, MASTER, MASTER_PASSWORD, Options, PASSWORD, free_port};
use understudy_tests::front_door::{
    DOMAIN, DovecotProxy, LastRoutes, Nginx, Plan, Postfix, deliver, hand_over, submit,
};
use understudy_tests::scenario::{self, PRIMARY, STANDBY};
use understudy_tests::stack::Stack;
use understudy_tests::wait;

/// For a log-in that should be through in milliseconds, and for mail that goes through a queue.
const PATIENCE: Duration = Duration::from_secs(180);
/// Longer than any log-in that nothing holds up.
const QUICK: Duration = Duration::from_secs(3);
/// A log-in that is not through after this waits.
const WAITS: Duration = Duration::from_millis(700);
/// From where administrators may name the side, and whence everybody sees the primary: as the plan configures it.
const ADMINISTRATOR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const ALWAYS_PRIMARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 78);

/// Two servers that say who they are, Understudy, and doors in front. `ann` and `ben` are protected, `zoe` is not.
struct Site {
    primary: Dovecot,
    standby: Dovecot,
    stack: Stack,
    plan: Plan,
    pool: PgPool,
}

impl Site {
    async fn start() -> Result<Self> {
        Self::start_between(Plan::new()?, |primary| primary, |standby| standby, "").await
    }

    /// With other servers, and more at the end of the configuration.
    async fn start_between(
        plan: Plan,
        primary: impl Fn(Options) -> Options,
        standby: impl Fn(Options) -> Options,
        more: &str,
    ) -> Result<Self> {
        let users = ["ann", "ben", "zoe", "zoe@example.org"];
        // The ID of a server tells which side it is; it passes through proxies.
        let named = |options: Options, name: &str| options.extra(&format!("imap_id_send = name {name}"));
        let primary = Dovecot::start(primary(named(scenario::primary(&users), PRIMARY).managed()))?;
        let standby = Dovecot::start(standby(named(scenario::standby(&users), STANDBY).managed()))?;
        let servers = [("primary", &primary), ("standby", &standby)];
        let listen = plan.admin.to_string();
        let doors = [plan.configuration(), plan.mail_configuration(), plan.nginx_configuration()].concat();
        let configuration = doors + more;
        let stack = Stack::up_in(&plan.stack_dir()?, &listen, &servers, &configuration).await?;
        for user in ["ann", "ben"] {
            let protect = ["mailbox", "protect", user, "--primary", PRIMARY, "--standby", STANDBY];
            stack.command(&protect).await?.expect(0)?;
        }
        let settled = stack.command(&["mailbox", "wait", "--all", "--timeout", "240s"]).await?;
        settled.expect(0)?;
        let socket = stack.data_dir().join("run");
        let password = std::fs::read_to_string(stack.data_dir().join("postgres/password"))?;
        let options = PgConnectOptions::new_without_pgpass().socket(socket).username("understudy");
        let pool = PgPool::connect_lazy_with(options.password(password.trim()).database("understudy"));
        sqlx::raw_sql("insert into mailbox_alias (tenant_id, alias, mailbox_id) select 1, 'annie@example.org', mailbox_id from mailbox where address = 'ann'")
            .execute(&pool)
            .await?;
        Ok(Self { primary, standby, stack, plan, pool })
    }

    async fn mailbox(&self, user: &str) -> Result<MailboxId> {
        route::mailbox_of(&self.pool, user).await?.context("it is not protected")
    }

    /// Moves a user, as the engine does it in the end.
    async fn flip(&self, user: &str, side: Side) -> Result<()> {
        let mailbox = self.mailbox(user).await?;
        route::announce_hold(&self.pool, &[mailbox]).await?;
        let mut transaction = self.pool.begin().await?;
        let held = route::hold(&mut transaction, &[mailbox]).await?;
        ensure!(route::flip(&mut transaction, mailbox, side, held[0].epoch).await?, "the route did not change");
        Ok(transaction.commit().await?)
    }

    /// The addresses under which a user's inbox of a server has mail.
    async fn subjects(&self, server: &Dovecot, user: &str) -> Result<Vec<String>> {
        let mut client = Client::log_in(server.imap_address(), user, PASSWORD).await?;
        client.select("INBOX").await?;
        let found = client.command("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])").await.unwrap_or_default();
        let mut subjects: Vec<String> = found
            .iter()
            .filter_map(|response| {
                let text: String = response.iter().map(words).collect();
                let (_, rest) = text.split_once("Subject: ")?;
                Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect())
            })
            .collect();
        subjects.sort();
        Ok(subjects)
    }

    /// How often each of them is there.
    async fn counted(&self, server: &Dovecot, user: &str) -> Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for subject in self.subjects(server, user).await? {
            *counts.entry(subject).or_default() += 1;
        }
        Ok(counts)
    }
}

/// Everything that is said in a value.
fn words(value: &Value) -> String {
    match value.list() {
        [] => format!("{} ", value.text()),
        list => list.iter().map(words).collect(),
    }
}

/// Whose session it is; it has ended then.
async fn side_of(mut client: Client) -> Result<Side> {
    let answer: String = client.command("ID NIL").await?.iter().flatten().map(words).collect();
    client.log_out().await;
    match (answer.contains(PRIMARY), answer.contains(STANDBY)) {
        (true, false) => Ok(Side::Primary),
        (false, true) => Ok(Side::Standby),
        _ => anyhow::bail!("the server says {answer}"),
    }
}

async fn reaches(door: SocketAddr, login: &str) -> Result<Side> {
    let password = if login.contains('*') { MASTER_PASSWORD } else { PASSWORD };
    let client = tokio::time::timeout(PATIENCE, Client::log_in(door, login, password)).await;
    side_of(client.context("the log-in is not answered")?.with_context(|| format!("{login} at {door}"))?).await
}

/// How log-ins went.
#[derive(Default)]
struct LogIns {
    took: Vec<Duration>,
    /// Those that would have to be made again.
    refused: Vec<String>,
}

/// Ann, who is on the standby, and zoe, who is on the primary, log in one after the other until that is dropped.
async fn log_in_all_the_time(door: SocketAddr, mut over: oneshot::Receiver<()>) -> LogIns {
    let mut log_ins = LogIns::default();
    for (login, side) in [("ann", Side::Standby), ("zoe", Side::Primary)].into_iter().cycle() {
        let begun = Instant::now();
        match reaches(door, login).await {
            Ok(reached) if reached == side => log_ins.took.push(begun.elapsed()),
            Ok(reached) => log_ins.refused.push(format!("{login} reaches the {reached:?}")),
            Err(error) => log_ins.refused.push(format!("after {:?}: {error:#}", begun.elapsed())),
        }
        if over.try_recv() != Err(TryRecvError::Empty) {
            break;
        }
    }
    log_ins
}

/// Every way in which ann may spell herself.
fn forms() -> [String; 7] {
    ["ann", "ANN", "ann+news", "ann@example.org", "Ann+News@Example.ORG", "annie@example.org", "Annie+x@example.org"]
        .map(str::to_owned)
}

#[tokio::test]
async fn every_form_of_a_log_in_reaches_the_side_of_the_route() -> Result<()> {
    let site = Site::start().await?;
    let (proxy, nginx) = (DovecotProxy::start(&site.plan)?, Nginx::start(&site.plan)?);
    for side in [Side::Primary, Side::Standby, Side::Primary] {
        let route = route::get(&site.pool, site.mailbox("ann").await?).await?.context("no route")?;
        if route.side != side {
            site.flip("ann", side).await?;
        }
        for door in [proxy.imap_address(), nginx.imap_address()] {
            for form in forms() {
                ensure!(reaches(door, &form).await? == side, "{form} at {door} does not reach the {side:?}");
            }
            ensure!(reaches(door, &format!("ann*{MASTER}")).await? == side, "the master user goes elsewhere");
            ensure!(reaches(door, "ben").await? == Side::Primary, "somebody else moved too");
            ensure!(reaches(door, "zoe").await? == Side::Primary, "who is not protected is on the primary");
            ensure!(Client::log_in(door, "nobody", PASSWORD).await.is_err(), "nobody got in");
            ensure!(Client::log_in(door, "ann", "wrong").await.is_err(), "a wrong password got in");
            ensure!(Client::log_in(door, "ann!standby", PASSWORD).await.is_err(), "anybody may name the side");

            let from = |source, login: &'static str| Client::log_in_from(source, door, login, PASSWORD);
            ensure!(side_of(from(ADMINISTRATOR, "ann!standby").await?).await? == Side::Standby);
            ensure!(side_of(from(ADMINISTRATOR, "ann!primary").await?).await? == Side::Primary);
            ensure!(side_of(from(ADMINISTRATOR, "ann").await?).await? == side);
            ensure!(side_of(from(ALWAYS_PRIMARY, "ann").await?).await? == Side::Primary);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_held_log_in_waits_and_old_sessions_are_cut() -> Result<()> {
    let site = Site::start().await?;
    let (proxy, nginx) = (DovecotProxy::start(&site.plan)?, Nginx::start(&site.plan)?);
    let doors = FrontDoors::open(&site.pool).await?;
    let ann = site.mailbox("ann").await?;
    let mut sessions = Vec::new();
    for door in [proxy.imap_address(), nginx.imap_address()] {
        sessions.push(Client::log_in(door, "Ann+x@example.org", PASSWORD).await?);
    }
    let mut other = Client::log_in(proxy.imap_address(), "ben", PASSWORD).await?;

    route::announce_hold(&site.pool, &[ann]).await?;
    let mut transaction = site.pool.begin().await?;
    let held = route::hold(&mut transaction, &[ann]).await?;
    let mut waiting = Vec::new();
    for door in [proxy.imap_address(), nginx.imap_address()] {
        let (mut login, name) = (Box::pin(reaches(door, "ann@example.org")), door);
        ensure!(tokio::time::timeout(WAITS, &mut login).await.is_err(), "a held log-in at {name} went through");
        waiting.push(login);
    }
    ensure!(reaches(proxy.imap_address(), "ben").await? == Side::Primary, "a hold holds somebody else");
    let cut = doors.cut(&site.pool, &[ann], Side::Primary).await?;
    ensure!(cut.is_complete() && cut.sessions > 0, "{cut:?}");
    for mut session in sessions {
        let ended = wait::until("an old session ends", PATIENCE, async || Ok(session.run("NOOP").await.is_err()));
        ended.await?;
    }
    other.run("NOOP").await.context("the session of somebody else was cut")?;

    ensure!(route::flip(&mut transaction, ann, Side::Standby, held[0].epoch).await?, "the route did not change");
    transaction.commit().await?;
    for login in waiting {
        ensure!(login.await? == Side::Standby, "a held log-in went to the old side");
    }
    // Whoever is still on the side that was left goes; whoever is on the new one stays.
    let mut new = Client::log_in(proxy.imap_address(), "ann", PASSWORD).await?;
    ensure!(doors.cut_left_behind(&site.pool, &[ann], Side::Primary).await?.sessions == 0, "nobody was there");
    new.run("NOOP").await.context("a session on the new side was cut")?;
    ensure!(doors.cut_left_behind(&site.pool, &[ann], Side::Standby).await?.sessions == 1, "one is there");
    wait::until("it ends", PATIENCE, async || Ok(new.run("NOOP").await.is_err())).await?;
    let mut transaction = site.pool.begin().await?;
    let again = route::flip(&mut transaction, ann, Side::Primary, held[0].epoch).await?;
    ensure!(!again, "an old epoch changed the side");
    let shown = site.stack.json(&["mailbox", "show", "ann"]).await?;
    ensure!(shown["active_side"] == "standby" && shown["epoch"] == 2, "{shown:#}");
    Ok(())
}

#[tokio::test]
async fn preflight_says_what_a_front_door_lacks() -> Result<()> {
    let site = Site::start().await?;
    let findings = async || -> Result<Vec<(String, String)>> {
        let answer = site.stack.command(&["preflight", "--json"]).await?;
        let found: Vec<serde_json::Value> = serde_json::from_str(&answer.stdout)?;
        let of_doors =
            found.iter().filter(|one| ["imap-1", "imap-2", "routes file"].iter().any(|name| one["name"] == *name));
        of_doors
            .map(|one| {
                let has_remedy = one["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty());
                ensure!(one["level"] == "ok" || has_remedy, "no remedy: {one}");
                Ok((one["name"].to_string(), one["level"].to_string()))
            })
            .collect()
    };
    let level = |found: &[(String, String)]| found.iter().filter(|(_, level)| level != "\"ok\"").count();
    let without = findings().await?;
    ensure!(level(&without) == 4, "the proxy is not there, nor its management, nor any way for mail: {without:?}");
    let proxy = DovecotProxy::start(&site.plan)?;
    let alone = findings().await?;
    let lacks: Vec<_> = alone.iter().filter(|(_, level)| level != "\"ok\"").collect();
    let warned = lacks.len() == 1 && *lacks[0] == ("\"imap-1\"".to_owned(), "\"warning\"".to_owned());
    ensure!(warned, "mail has no fallback: {alone:?}");
    let last_routes = LastRoutes::start(&site.plan)?;
    let with = findings().await?;
    ensure!(with.len() == 6 && level(&with) == 0, "something is wrong with a door that works: {with:?}");
    drop((proxy, last_routes));
    Ok(())
}

/// The standby's certificate ends in nine days: the administrator, who has a mailbox here too, reads of it.
#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_by_a_real_postfix() -> Result<()> {
    let plan = Plan::new()?;
    let relay = format!(
        "[smtp]\nrelays = [\"smtp://{}\"]\nfrom = \"Understudy <understudy@{DOMAIN}>\"\nadministrators = [\"ben@{DOMAIN}\"]\n",
        plan.smtp
    );
    let ending = |standby| Options { tls: true, certificate_days: 9, ..standby };
    let site = Site::start_between(plan, |primary| primary, ending, &relay).await?;
    let (_proxy, postfix) = (DovecotProxy::start(&site.plan)?, Postfix::start(&site.plan)?);
    let mut mails = String::new();
    let came = wait::until("the mail about the certificate arrives", PATIENCE, async || {
        let mut client = Client::log_in(site.primary.imap_address(), "ben", PASSWORD).await?;
        client.select("INBOX").await?;
        let fetched = client.command("FETCH 1:* (BODY.PEEK[])").await.unwrap_or_default();
        mails = fetched.iter().flatten().map(words).collect();
        Ok(mails.contains("Subject: A certificate ends soon"))
    });
    came.await.with_context(|| format!("ben has: {mails}"))?;
    ensure!(mails.contains(&format!("{STANDBY}: the certificate it shows")), "it does not say which: {mails}");
    ensure!(mails.contains(&format!("To: ben@{DOMAIN}")) && mails.contains("Message-ID: "), "headers lack: {mails}");
    wait::until("Postfix says that it delivered", PATIENCE, async || Ok(postfix.log().contains("relay="))).await?;

    // The log of deliveries has what Postfix said.
    let mut said = Vec::new();
    let logged = wait::until("the delivery is logged", PATIENCE, async || {
        let answers = sqlx::query_scalar(
            "select d.answer from delivery d join message m using (message_id)
             where m.topic = 'certificate_expiring' and d.outcome = 'sent'",
        );
        said = answers.fetch_all(&site.pool).await?;
        Ok(!said.is_empty())
    });
    logged.await?;
    ensure!(
        said.len() == 1 && said.iter().all(|answer: &String| answer.contains("queued as")),
        "Postfix said {said:?}"
    );
    Ok(())
}

#[tokio::test]
async fn mail_arrives_once_on_the_side_of_the_route() -> Result<()> {
    let site = Site::start().await?;
    let (proxy, postfix) = (DovecotProxy::start(&site.plan)?, Postfix::start(&site.plan)?);
    let recipients = ["ann", "Ann+News", "annie", "ben", "zoe"].map(|name| format!("{name}@{DOMAIN}"));
    let send = async |round: &str| -> Result<()> {
        for recipient in &recipients {
            let name = recipient.split('@').next().unwrap_or_default().replace('+', "-");
            deliver(postfix.smtp_address(), recipient, &format!("{round}-{name}")).await?;
        }
        Ok(())
    };
    send("before").await?;
    let refused = deliver(postfix.smtp_address(), &format!("nobody@{DOMAIN}"), "none").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("550")), "mail for nobody is taken");
    let three = |round: &str| ["Ann-News", "ann", "annie"].map(|name| format!("{round}-{name}")).to_vec();
    let arrives = async |server: &Dovecot, expected: &[String]| -> Result<()> {
        let mut found = Vec::new();
        let all_there = wait::until("mail arrives", PATIENCE, async || {
            found = site.subjects(server, "ann").await?;
            Ok(expected.iter().all(|subject| found.contains(subject)))
        });
        let outcome = all_there.await;
        outcome.with_context(|| format!("found {found:?}, expected {expected:?}"))
    };
    arrives(&site.primary, &three("before")).await?;

    // During the change mail waits in the queue, for her alone.
    let ann = site.mailbox("ann").await?;
    route::announce_hold(&site.pool, &[ann]).await?;
    let mut transaction = site.pool.begin().await?;
    let held = route::hold(&mut transaction, &[ann]).await?;
    send("during").await?;
    wait::until("ben has his mail", PATIENCE, async || {
        Ok(site.subjects(&site.primary, "ben").await?.contains(&"during-ben".to_owned()))
    })
    .await?;
    ensure!(!site.subjects(&site.primary, "ann").await?.iter().any(|subject| subject.starts_with("during")));
    ensure!(route::flip(&mut transaction, ann, Side::Standby, held[0].epoch).await?, "the route did not change");
    transaction.commit().await?;
    send("after").await?;
    let expected: Vec<String> = ["during", "after"].iter().flat_map(|round| three(round)).collect();
    arrives(&site.standby, &expected).await?;

    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for subject in site.subjects(&site.standby, "ann").await? {
        *counts.entry(subject).or_default() += 1;
    }
    ensure!(counts.values().all(|count| *count == 1), "something arrived twice: {counts:?}");
    ensure!(site.subjects(&site.primary, "ann").await?.len() == 3, "mail went to the old side");
    drop(proxy);
    Ok(())
}

#[tokio::test]
async fn the_last_routes_work_without_understudy_and_its_database() -> Result<()> {
    let mut site = Site::start().await?;
    let (proxy, nginx) = (DovecotProxy::start(&site.plan)?, Nginx::start(&site.plan)?);
    let doors = [proxy.imap_address(), nginx.imap_address()];
    site.flip("ann", Side::Standby).await?;
    // This takes a moment, and whoever stops Understudy sooner has the routes before.
    let there = format!(" port={} ", site.standby.ports().imap);
    wait::until("the routes are written down", PATIENCE, async || {
        let text = std::fs::read_to_string(site.plan.routes_file()).unwrap_or_default();
        let is_there = |form: &str| text.lines().any(|line| line.starts_with(form) && line.contains(&there));
        Ok(["imap/ann:", "imap/annie@example.org:"].into_iter().all(is_there))
    })
    .await?;
    for door in doors {
        for login in ["ann", "annie@example.org", "ben", "zoe"] {
            reaches(door, login).await?;
        }
    }
    site.stack.stop()?;
    for door in doors {
        for (login, side) in [
            ("ann", Side::Standby),
            ("annie@example.org", Side::Standby),
            ("ben", Side::Primary),
            ("zoe", Side::Primary),
        ] {
            ensure!(reaches(door, login).await? == side, "{login} at {door} does not reach the {side:?}");
        }
    }
    // Forms that nobody used before, and which Understudy wrote down.
    ensure!(reaches(proxy.imap_address(), "ANN@Example.org").await? == Side::Standby);
    // What might be somebody on the standby is not sent to the primary.
    ensure!(Client::log_in(proxy.imap_address(), "ann+x", PASSWORD).await.is_err());

    site.stack.start().await?;
    site.flip("ann", Side::Primary).await?;
    for door in doors {
        wait::until(
            "the route is asked for again",
            PATIENCE,
            async || Ok(reaches(door, "ann").await? == Side::Primary),
        )
        .await?;
    }
    Ok(())
}

/// Understudy is killed with its database, as in a power failure, while mail comes and people log in: each mail is delivered at once
/// by the last routes, and once. Who was changing sides just then gets mail when that is over, on the right side.
#[tokio::test]
async fn mail_goes_on_by_the_last_routes_without_understudy_and_its_database() -> Result<()> {
    let mut site = Site::start().await?;
    let (proxy, postfix) = (DovecotProxy::start(&site.plan)?, Postfix::start_that_retries(&site.plan, "15s")?);
    let last_routes = LastRoutes::start(&site.plan)?;
    site.flip("ann", Side::Standby).await?;
    let written = async |what: &str, line: &str, port: u16| {
        let (start, port) = (format!("{line}:"), format!(" port={port} "));
        wait::until(what, PATIENCE, async || {
            let text = std::fs::read_to_string(site.plan.routes_file()).unwrap_or_default();
            Ok(text.lines().any(|line| line.starts_with(&start) && line.contains(&port)))
        })
        .await
    };
    written("the route is written down", "lmtp/ann@example.org", site.standby.ports().lmtp).await?;
    let mut sent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut send = async |to: &str, subject: String| -> Result<()> {
        deliver(postfix.smtp_address(), &format!("{to}@{DOMAIN}"), &subject).await?;
        sent.entry(to.split('+').next().unwrap_or_default().to_owned()).or_default().push(subject);
        Ok(())
    };
    for to in ["ann", "zoe", "ben"] {
        send(to, format!("before-{to}")).await?;
    }

    let ben = site.mailbox("ben").await?;
    route::announce_hold(&site.pool, &[ben]).await?;
    written("it is written down that ben changes sides", "lmtp/ben@example.org", 1).await?;
    let refused = hand_over(last_routes.lmtp_address(), "ben@example.org", "Subject: x\r\n\r\nx\r\n").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains("451 ")), "mail for who changes sides is taken");

    let (over, is_over) = oneshot::channel();
    let log_ins = tokio::spawn(log_in_all_the_time(proxy.imap_address(), is_over));
    site.stack.kill()?;
    let cut = Instant::now();
    for number in 0..60 {
        // Some of them for a name under which nobody got mail before, so that Postfix asks whether there is such a user.
        let to = ["ann", "zoe", "annie", "ann+news"][number % 4];
        send(to, format!("away-{number:03}")).await?;
    }
    send("ben", "away-ben".to_owned()).await?;
    let sending = cut.elapsed();
    let hers: Vec<String> = ["ann", "annie"].iter().flat_map(|name| sent[*name].clone()).collect();
    let mut lacking = Vec::new();
    let delivered = wait::until("all of it is there", PATIENCE, async || {
        let (ann, zoe) =
            (site.counted(&site.standby, "ann").await?, site.counted(&site.primary, "zoe@example.org").await?);
        lacking = hers.iter().filter(|subject| !ann.contains_key(*subject)).cloned().collect();
        lacking.extend(sent["zoe"].iter().filter(|subject| !zoe.contains_key(*subject)).cloned());
        Ok(lacking.is_empty())
    });
    delivered.await.with_context(|| format!("not delivered: {lacking:?}"))?;
    drop(over);
    let LogIns { mut took, refused } = log_ins.await?;
    took.sort();
    println!(
        "60 mails while the database was away: handed in within {:.1} s, all there {:.1} s after it died; {} log-ins amid them: half within {:.2} s, slowest {:.2} s; {} refused",
        sending.as_secs_f64(),
        cut.elapsed().as_secs_f64(),
        took.len(),
        took.get(took.len() / 2).copied().unwrap_or_default().as_secs_f64(),
        took.last().copied().unwrap_or_default().as_secs_f64(),
        refused.len(),
    );
    ensure!(refused.is_empty(), "log-ins have to be made again while mail comes: {refused:#?}");
    ensure!(took.len() > 20 && took.last() < Some(&QUICK), "{} log-ins, slowest {:?}", took.len(), took.last());
    ensure!(site.counted(&site.primary, "ann").await?.is_empty(), "mail went to the side that ann had left");
    let bens = async |side: &Dovecot| Ok::<_, anyhow::Error>(site.counted(side, "ben").await?.contains_key("away-ben"));
    ensure!(!bens(&site.primary).await? && !bens(&site.standby).await?, "mail for who changes sides was delivered");
    let log = postfix.log();
    let deferred: Vec<&str> = log.lines().filter(|line| line.contains("status=deferred")).collect();
    ensure!(deferred.iter().all(|line| line.contains("to=<ben@")), "mail was put off: {deferred:#?}");

    site.stack.start().await?;
    site.flip("ben", Side::Standby).await?;
    wait::until("ben has his mail", PATIENCE, async || {
        Ok(site.counted(&site.standby, "ben").await?.contains_key("away-ben"))
    })
    .await?;
    ensure!(!site.counted(&site.primary, "ben").await?.contains_key("away-ben"), "it went to the side he had left too");
    for (server, user) in [(&site.standby, "ann"), (&site.primary, "zoe@example.org"), (&site.standby, "ben")] {
        let twice: Vec<_> = site.counted(server, user).await?.into_iter().filter(|(_, count)| *count != 1).collect();
        ensure!(twice.is_empty(), "{user} has some of it twice: {twice:?}");
    }
    Ok(())
}

/// What users send goes through nginx to the side where they are, while Understudy is away too, and arrives.
#[tokio::test]
async fn what_users_send_goes_by_the_last_routes_without_understudy_and_its_database() -> Result<()> {
    let plan = Plan::new()?;
    let (primary, standby, relay) = (free_port(Ipv4Addr::LOCALHOST)?, free_port(Ipv4Addr::LOCALHOST)?, plan.smtp);
    let submission = |options: Options, name: &str, port: u16| {
        options.extra(&format!(
            "protocols = imap lmtp submission\nhostname = {name}.{DOMAIN}\n\
             submission_relay_host = {}\nsubmission_relay_port = {}\nsubmission_relay_trusted = no\n\
             service submission-login {{\n  inet_listener submission {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n  \
             inet_listener submissions {{\n    port = 0\n  }}\n}}",
            relay.ip(),
            relay.port(),
        ))
    };
    let at_the_primary = |options: Options| submission(options, PRIMARY, primary);
    let at_the_standby = |options: Options| submission(options, STANDBY, standby);
    let mut site = Site::start_between(plan, at_the_primary, at_the_standby, "").await?;
    let file = site.stack.config_file();
    let mut text = std::fs::read_to_string(&file)?;
    for (name, port) in [(PRIMARY, primary), (STANDBY, standby)] {
        let line = format!("name = \"{name}\"\n");
        text = text.replace(&line, &format!("{line}submission = \"smtp://127.0.0.1:{port}\"\n"));
    }
    std::fs::write(&file, text)?;
    site.stack.stop()?;
    site.stack.start().await?;
    let (_proxy, postfix) = (DovecotProxy::start(&site.plan)?, Postfix::start(&site.plan)?);
    let (_last_routes, nginx) = (LastRoutes::start(&site.plan)?, Nginx::start(&site.plan)?);
    let door = nginx.submission_address();
    let to = format!("zoe@{DOMAIN}");
    let sends = async |user: &str, subject: &str, side: &str| -> Result<()> {
        let sent = tokio::time::timeout(PATIENCE, submit(door, user, PASSWORD, &to, subject)).await;
        let who = sent.context("the log-in is not answered")?.with_context(|| format!("{user}, {subject}"))?;
        ensure!(who.starts_with(side), "{user} reached {who} with {subject}, not the {side}");
        Ok(())
    };
    site.flip("ann", Side::Standby).await?;
    for (user, side) in [("ann", STANDBY), ("ben", PRIMARY)] {
        sends(user, &format!("with-{user}"), side).await?;
    }
    ensure!(submit(door, "ann", "wrong", &to, "x").await.is_err(), "a wrong password got in");
    site.stack.stop()?;
    for (user, side) in [("ann", STANDBY), ("ben", PRIMARY)] {
        sends(user, &format!("without-{user}"), side).await?;
    }
    // Who never came through it is refused for the time.
    let refused = submit(door, "ann@example.org", PASSWORD, &to, "x").await;
    ensure!(refused.is_err_and(|error| error.to_string().contains(" 4")), "it is not for the time");
    let sent = ["with-ann", "with-ben", "without-ann", "without-ben"];
    let came = wait::until("all of it is there", PATIENCE, async || {
        let counts = site.counted(&site.primary, "zoe@example.org").await?;
        Ok(sent.iter().all(|subject| counts.get(*subject) == Some(&1)))
    });
    came.await.with_context(|| postfix.log())?;

    site.stack.start().await?;
    site.flip("ann", Side::Primary).await?;
    wait::until("the route is asked for again", PATIENCE, async || Ok(sends("ann", "back", PRIMARY).await.is_ok()))
        .await
}
