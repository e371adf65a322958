//! How fast fifty thousand mailboxes are answered for. Prints, and asserts no time: machines differ and are busy.
//!
//! `.ci/with-postgres cargo test -p understudy-admin-api --test api -- --ignored --nocapture fifty_thousand`

use std::time::{Duration, Instant};

use crate::service::{Service, server};

/// Times each question is asked, besides once to warm what is cold.
const ROUNDS: usize = 100;
/// What takes so long, as whole reports do, is asked less often.
const PATIENCE: Duration = Duration::from_secs(4);
/// What an endpoint may take.
const GOAL_MS: f64 = 200.0;

/// Fifty thousand mailboxes of four tenants on sixteen pairs of servers: most mirrored, some of every other state, one in a hundred
/// behind, some with a journal, problems and another side.
const FILL: &str = "
    insert into tenant (name) select 'customer-' || n from generate_series(1, 3) n;
    insert into server (tenant_id, name, role, definition)
    select t.tenant_id, s.name, s.role, s.definition from server s cross join tenant t where t.tenant_id > 1;
    insert into mailbox (tenant_id, address, primary_server_id, standby_server_id, standby_address, group_name, phase, paused, captured_seq,
                         received_seq, applied_seq)
    select t.tenant_id, format('user%s@%s.example.org', to_char(n, 'FM00000'), t.name), p.server_id, s.server_id,
           format('user%s@%s.example.org', to_char(n, 'FM00000'), t.name),
           'group-' || n % 50, case when n % 97 = 0 then 'seeding' else 'mirroring' end, n % 101 = 0,
           100, 100, case when n % 100 = 0 then 90 else 100 end
    from (select *, row_number() over (order by tenant_id) - 1 as index from tenant) t
    cross join generate_series(1, 50000) n
    join server p on p.tenant_id = t.tenant_id and p.name = 'primary-' || (n % 4 + 1)
    join server s on s.tenant_id = t.tenant_id and s.name = 'standby-' || (n % 4 + 1)
    where (t.index = 0 and n <= 35000) or (t.index > 0 and n <= 5000);
    insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at, applied_at)
    select mailbox_id, 'outbound', seq, 1, false, '', 1, 1000, now() - interval '1 minute',
           case when seq <= applied_seq then now() end
    from mailbox cross join generate_series(81, 100) seq where mailbox_id % 10 = 0 or applied_seq = 90;
    insert into event (tenant_id, kind, mailbox_id, created_at)
    select 1, 'resumed', n % 35000 + 1, now() - n * interval '10 seconds' from generate_series(1, 100000) n;
    insert into run (run_id, tenant_id, kind, mailbox_id, state, created_at, requested_by)
    select gen_random_uuid(), 1, 'verify', n, case when n <= 10 then 'running' else 'done' end, now() - n * interval '1 minute', 'user ann'
    from generate_series(1, 5000) n;
    insert into message (message_id, tenant_id, topic, channel, recipient, created_at, sent_at)
    select gen_random_uuid(), 1, 'fault', 'mail', 'ann@example.org', now() - n * interval '1 minute', now() from generate_series(1, 5000) n;
    update mailbox set last_transaction_at = now(), bytes_done = mailbox_id * 1000;
    analyze;
";

/// A source gateway away for a while: two of five mailboxes are behind, by ten transactions each.
const BEHIND: &str = "
    insert into transaction (mailbox_id, direction, seq, epoch, seed, body, changes, content_bytes, captured_at)
    select mailbox_id, 'outbound', seq, 1, false, '', 1, 1000, now() - interval '1 minute'
    from mailbox cross join generate_series(101, 110) seq where mailbox_id % 5 < 2;
    update mailbox set captured_seq = 110, received_seq = 110 where mailbox_id % 5 < 2;
    analyze;
";

#[tokio::test]
#[ignore = "measures; prints how long fifty thousand mailboxes take"]
async fn fifty_thousand_mailboxes() {
    let service = Service::start().await;
    for number in 1..=4 {
        for role in ["primary", "standby"] {
            service.post("/api/v1/servers", server(&format!("{role}-{number}"), role)).await.expect(201);
        }
    }
    service.execute(FILL).await;
    assert_eq!(service.number("select count(*) from mailbox").await, 50_000);
    let mut deep = String::new();
    for _ in 0..30 {
        let page = service.get(&format!("/api/v1/mailboxes?limit=1000{deep}")).await.expect(200);
        deep = format!("&after={}", page.body["next"].as_str().unwrap());
    }
    let mut paths: Vec<String> = every_endpoint();
    paths.extend([
        "/api/v1/mailboxes?limit=1000".to_owned(),
        format!("/api/v1/mailboxes?limit=100{deep}"),
        "/api/v1/mailboxes?state=seeding".to_owned(),
        "/api/v1/mailboxes?state=faulted".to_owned(),
        "/api/v1/mailboxes?server=primary-3".to_owned(),
        "/api/v1/mailboxes?group=group-7".to_owned(),
        "/api/v1/mailboxes?q=user1".to_owned(),
        "/api/v1/mailboxes?q=user34987".to_owned(),
        "/api/v1/mailboxes?q=nobody-at-all".to_owned(),
        "/api/v1/runs?open=true".to_owned(),
        "/api/v1/servers?limit=1000".to_owned(),
        "/api/v1/history?limit=60".to_owned(),
    ]);
    println!("35,000 of 50,000 mailboxes are this tenant's; up to {ROUNDS} times each");
    measure(&service, &paths).await;
    service.execute(BEHIND).await;
    println!("\nThe same with 20,000 mailboxes behind by 200,000 transactions");
    let overview =
        ["/api/v1/status", "/api/v1/servers", "/api/v1/map", "/api/v1/groups", "/api/v1/mailboxes", "/metrics"];
    measure(&service, &overview.map(str::to_owned)).await;
}

/// Every GET of the document, with something that is there for each name in its path; reports of the month that began now.
fn every_endpoint() -> Vec<String> {
    let document = serde_json::to_value(understudy_admin_api::openapi()).unwrap();
    let month = chrono::Utc::now().format("%Y-%m");
    let paths = document["paths"].as_object().unwrap().iter().filter(|(_, methods)| methods["get"].is_object());
    let asked = paths.filter_map(|(path, _)| match path.as_str() {
        // One does not end, one is nginx's own.
        "/api/v1/events" | "/api/v1/routes/nginx-auth" => None,
        "/api/v1/reports/billing" | "/api/v1/reports/availability" => {
            Some(format!("{path}?from={month}-01&to={month}-28"))
        }
        "/api/v1/invoices/{month}" => Some(format!("/api/v1/invoices/{month}")),
        // There is no such run, policy, user or canary: what that takes is measured all the same.
        path => Some(
            path.replace("{address}", "user34987@default.example.org")
                .replace("servers/{name}", "servers/primary-3")
                .replace("groups/{name}", "groups/group-7")
                .replace("policies/{name}", "policies/default")
                .replace("{name}", "nobody")
                .replace("{id}", "00000000-0000-0000-0000-000000000000"),
        ),
    });
    asked.collect()
}

async fn measure(service: &Service, paths: &[String]) {
    println!("{:80} {:>9} {:>9}", "", "p50", "p99");
    for path in paths {
        let mut took: Vec<Duration> = Vec::new();
        let first = service.get(path).await;
        assert!(first.status.is_success() || first.status == 404, "{path}: {:#}", first.body);
        let all = Instant::now();
        while took.len() < ROUNDS && all.elapsed() < PATIENCE {
            let began = Instant::now();
            service.get(path).await;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        let (p50, p99) = (ms(took[took.len() / 2]), ms(took[took.len() * 99 / 100]));
        let shown: String = path.chars().take(70).collect();
        println!("{shown:80} {p50:6.1} ms {p99:6.1} ms{}", if p99 > GOAL_MS { "  above 200 ms" } else { "" });
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
